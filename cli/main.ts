// The command line: `deno task <command>` runs this file with the command's name.
// Exit code 0: good; 1: the work failed; 2: bad usage; 130 or 143: interrupted.
import { removeUnfinished } from "../model/host/atomic_file.ts";
import { bench } from "./bench.ts";
import { type Command, helpOf, type Interrupt, parseArguments, UsageError, useWebGpu } from "./command.ts";
import { compare } from "./compare.ts";
import { dequantize } from "./dequantize.ts";
import { doctor } from "./doctor.ts";
import { generate } from "./generate.ts";
import { peers } from "./peers.ts";
import { perplexity } from "./perplexity.ts";
import { quantize } from "./quantize.ts";
import { render } from "./render.ts";
import { report } from "./report.ts";
import { experiment, reproduce } from "./reproduce.ts";
import { serve } from "./serve.ts";

const COMMANDS: readonly Command[] = [
  reproduce,
  experiment,
  compare,
  render,
  report,
  peers,
  quantize,
  dequantize,
  perplexity,
  generate,
  bench,
  serve,
  doctor,
];

export async function main(args: readonly string[], interrupt: Interrupt): Promise<number> {
  const [name, ...rest] = args;
  const command = COMMANDS.find((command) => command.name === name);
  if (!command) {
    console.error(`command is ${name ?? "missing"}, must be one of ${COMMANDS.map(({ name }) => name).join(", ")}`);
    return 2;
  }
  try {
    const { values, positionals } = parseArguments(command, rest);
    if (values.help === true) {
      console.log(helpOf(command));
      return 0;
    }
    await useWebGpu(values);
    return await command.run(values, positionals, interrupt);
  } catch (error) {
    const { message } = error as Error;
    console.error(`${command.name}: ${message}`);
    if (error instanceof UsageError) console.error(`See deno task ${command.name} --help`);
    return error instanceof UsageError ? 2 : 1;
  }
}

if (import.meta.main) {
  // Vulkan's loader complains on every start where this is unset, though it doesn't need it.
  const variable = "XDG_RUNTIME_DIR";
  const isAllowed = Deno.permissions.querySync({ name: "env", variable }).state === "granted";
  if (isAllowed && !Deno.env.get(variable)) Deno.env.set(variable, "/tmp");
  const aborter = new AbortController();
  let isInterruptible = false;
  let interruptCode = 0;
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    Deno.addSignalListener(signal, () => {
      if (!isInterruptible || interruptCode !== 0) {
        removeUnfinished();
        Deno.exit(code);
      }
      interruptCode = code;
      aborter.abort();
    });
  }
  const begin = () => {
    isInterruptible = true;
  };
  const code = await main(Deno.args, { signal: aborter.signal, begin });
  Deno.exit(code === 0 ? interruptCode : code);
}
