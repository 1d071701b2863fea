// A time limit on work whose length a stranger's file decides, as that of a regular expression.

/** What is used of node:vm, whose timeouts end regular expressions too. */
interface Vm {
  createContext(globals: object): object;
  readonly Script: new (code: string) => { runInContext(context: object, options: { timeout: number }): unknown };
}

/** Absent in a browser, which tells its user of a page that doesn't answer. */
const vm = (globalThis as { readonly process?: { getBuiltinModule?(name: string): unknown } }).process
  ?.getBuiltinModule?.("node:vm") as Vm | undefined;

/** What any work may take, a loaded machine considered. */
const BASE_MS = 4000;

/** Characters of a text for which a millisecond is added; tokenizers take a hundredth of that. */
const CHARACTERS_PER_MS = 10;

/** Runs work on a text of so many characters. @throws {SyntaxError} when it takes too long */
export type TimeLimit = <T>(characters: number, work: () => T) => T;

/** Makes one; `name` says in errors what takes too long. */
export function createTimeLimit(name: string): TimeLimit {
  if (!vm) return (_, work) => work();
  const globals: { work?: () => unknown } = {};
  const context = vm.createContext(globals);
  const script = new vm.Script("work()");
  return <T>(characters: number, work: () => T) => {
    const timeout = Math.ceil(BASE_MS + characters / CHARACTERS_PER_MS);
    globals.work = work;
    try {
      return script.runInContext(context, { timeout }) as T;
    } catch (error) {
      if ((error as { code?: unknown } | null)?.code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
      const took = `${name} takes more than ${timeout / 1000} s for ${characters} characters`;
      throw new SyntaxError(`${took}, must take less`);
    }
  };
}
