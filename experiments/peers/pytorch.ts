// PyTorch's f16 matrix-vector product in a CUDA graph, on the shapes of our kernel table.
import { fromFileUrl } from "@std/path";
import { LAYER_SHAPES } from "../kernel_bench.ts";
import { parseJson } from "../results/parse_json.ts";
import type { PeerRun } from "./peer_run.ts";
import { runProgram } from "./run_program.ts";

const SCRIPT = new URL("torch_mv.py", import.meta.url);

/** Measures the product. @param python a Python that has PyTorch with CUDA */
export async function measurePytorch(python: string): Promise<PeerRun> {
  const shapes = [...new Set(LAYER_SHAPES.map(({ rows, channels }) => `${rows}x${channels}`))];
  return parseTorch(await runProgram(python, [fromFileUrl(SCRIPT), ...shapes]), shapes);
}

type Printed = Record<"version" | "cuda" | "device", string> & { readonly samples_us: Record<string, number[]> };

/** What torch_mv.py printed. @throws {SyntaxError} when it isn't that */
export function parseTorch(text: string, shapes: readonly string[]): PeerRun {
  const found = parseJson<Printed>("torch_mv.py's output", text);
  const lost = (["version", "cuda", "device"] as const).find((key) => typeof found?.[key] !== "string");
  const missing = lost ?? shapes.find((shape) => !Array.isArray(found?.samples_us?.[shape]));
  if (missing !== undefined) throw new SyntaxError(`torch_mv.py's output lacks ${missing}, must have it`);
  return {
    program: "PyTorch",
    version: found.version,
    gpu: found.device,
    built: `as installed, CUDA ${found.cuda}`,
    command: "torch.mv, f16, in a CUDA graph (experiments/peers/torch_mv.py)",
    measurements: shapes.map((shape) => ({ key: "time_us", shape, format: "F16", samples: found.samples_us[shape] })),
  };
}
