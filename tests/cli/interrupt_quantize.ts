// Ends `quantize` at a random moment, in each way in which it may end, and goes on with it.
import type { Random } from "../../quant/random.ts";
import { assert, assertEquals } from "../assert.ts";
import { filesIn, inDirectory } from "../temporary.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** How a run ends: by a signal, or where files can't grow beyond a size, as on a disk that is full. */
export const ENDS = ["SIGINT", "SIGTERM", "SIGKILL", "disk full"] as const;

/** A run that can be made again and again. */
export interface RepeatedRun {
  /** Arguments of `quantize`, without `--out`. */
  readonly args: readonly string[];
  /** The file that a run makes which nothing interrupts. */
  readonly wanted: Uint8Array;
  /** How long that took. */
  readonly tookMs: number;
}

/** Starts `quantize`; with a limit, no file can have more KiB. */
function start(args: readonly string[], limitKiB?: number): Deno.ChildProcess {
  const command = [Deno.execPath(), "run", "-A", "--no-check", "--quiet", `${ROOT}cli/main.ts`, "quantize", ...args];
  // A process that ignores the signal is told by an error, as it is where a disk is full.
  const limit = limitKiB === undefined ? "" : `trap "" XFSZ; ulimit -f ${limitKiB};`;
  const script = `${limit} exec "$@"`;
  return new Deno.Command("bash", { args: ["-c", script, "bash", ...command], stdout: "null", stderr: "piped" })
    .spawn();
}

/** Ends a process and says with which code and message. */
async function finish(child: Deno.ChildProcess): Promise<{ readonly code: number; readonly message: string }> {
  const message = await new Response(child.stderr).text();
  return { code: (await child.status).code, message };
}

/** Runs it once without interruption. */
export async function runWhole(args: readonly string[]): Promise<RepeatedRun> {
  let run: RepeatedRun | undefined;
  await inDirectory(async (directory) => {
    const startMs = performance.now();
    const { code, message } = await finish(start([...args, "--out", `${directory}/q`]));
    assertEquals(code, 0, message);
    run = { args, wanted: await Deno.readFile(`${directory}/q`), tookMs: performance.now() - startMs };
  });
  return run!;
}

/**
 * Interrupts a run up to three times and lets it end: the file is the one wanted, and nothing lies beside it.
 *
 * @returns how many of the interruptions met the run at work
 */
export async function interruptAndResume(
  { args, wanted, tookMs }: RepeatedRun,
  end: (typeof ENDS)[number],
  random: Random,
): Promise<number> {
  let met = 0;
  await inDirectory(async (directory) => {
    const path = `${directory}/q`;
    const isWhole = () => filesIn(directory).join() === "q";
    const next = () => {
      const left = filesIn(directory);
      // Ended between its last two steps, a run leaves both: the file, which is whole, and its layers.
      const force = left.includes("q") ? ["--force"] : [];
      return [...args, "--out", path, ...left.includes("q.layers") ? ["--resume", ...force] : force];
    };
    for (let turn = random.integer(3); turn >= 0 && !isWhole(); turn--) {
      const child = start(next(), end === "disk full" ? 1 + random.integer(wanted.length / 1024) : undefined);
      if (end !== "disk full") {
        const timer = setTimeout(() => child.kill(end), random.uniform() * tookMs);
        await child.status.finally(() => clearTimeout(timer));
      }
      const { code, message } = await finish(child);
      if (code === 0) break;
      met++;
      checkLeft(end, directory, code, message);
    }
    if (!isWhole()) {
      const { code, message } = await finish(start(next()));
      assertEquals(code, 0, `after ${end}: ${message}`);
    }
    assertEquals(filesIn(directory), ["q"], end);
    assert((await Deno.readFile(path)).every((byte, i) => byte === wanted[i]), `${end}: another file`);
    assertEquals((await Deno.stat(path)).size, wanted.length, end);
  });
  return met;
}

/** What a run that was ended may leave: whole layers and nothing else, but where it was killed. */
function checkLeft(end: (typeof ENDS)[number], directory: string, code: number, message: string): void {
  const codes = { SIGINT: 130, SIGTERM: 143, SIGKILL: 137, "disk full": 1 };
  assertEquals(code, codes[end], `${end}: ${message}`);
  if (end === "SIGKILL") return;
  const left = filesIn(directory);
  assert(left.every((name) => name === "q.layers" || name === "q"), `${end} leaves ${left}`);
  const layers = left.includes("q.layers") ? filesIn(`${directory}/q.layers`) : [];
  assert(layers.every((name) => /^(run\.json|layer-\d+\.safetensors)$/.test(name)), `${end} leaves ${layers}`);
  if (end === "disk full") assert(/cannot be written: .*large[^\n]*\n$/.test(message), message);
}
