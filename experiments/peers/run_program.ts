// Running other programs.

/** Lines of a failed program's output that its error shows. */
const SHOWN_LINES = 15;

/**
 * Runs a program and returns what it printed.
 *
 * @throws {Error} with the end of its output when it fails or isn't there
 */
export async function runProgram(program: string, args: readonly string[]): Promise<string> {
  let output;
  try {
    output = await new Deno.Command(program, { args: [...args] }).output();
  } catch (cause) {
    throw new Error(`${program} cannot be run, must be installed: ${(cause as Error).message}`, { cause });
  }
  const [printed, errors] = [output.stdout, output.stderr].map((bytes) => new TextDecoder().decode(bytes));
  if (!output.success) {
    const end = `${printed}\n${errors}`.trim().split("\n").slice(-SHOWN_LINES).join("\n");
    throw new Error(`${[program, ...args].join(" ")} ended with ${output.code}:\n${end}`);
  }
  return printed;
}
