/**
 * `deno task serve`: the engine and the kernel tests in a browser.
 *
 * @module
 */
import { findModelFiles } from "../../web/model_files.ts";
import { createHandler } from "../../web/server.ts";
import { type Command, integerOption, MODEL_HELP, textOption } from "./command.ts";
import { createProgressLine } from "./progress.ts";

/** Serves the page until it is interrupted. */
export const serve: Command = {
  name: "serve",
  summary: "Serves a page, to this machine alone, that runs the engine and the kernel tests on the browser's WebGPU.",
  positionals: [],
  options: {
    model: {
      type: "string",
      value: "tiny|DIR|F.safetensors|hf:ORG/NAME[@REVISION]",
      help: `Model that the page loads: a packed file, ${MODEL_HELP}; no GGUF file.`,
    },
    port: { type: "string", value: "N", help: "Port (default 8000); 0 for any that is free." },
  },
  interruptible: true,
  async run(options, _positionals, signal) {
    const port = integerOption(options, "port", 8000, 0, 65535);
    const line = createProgressLine("loading");
    const model = await findModelFiles(
      textOption(options, "model", "tiny"),
      (share, file) => line.update(share, file),
    );
    line.clear();
    const server = Deno.serve({
      hostname: "127.0.0.1",
      port,
      signal,
      onListen: ({ port }) => console.log(`http://localhost:${port}/ has ${model.listing.name}; Ctrl-C ends it`),
    }, await createHandler(model));
    await server.finished;
    return 0;
  },
};
