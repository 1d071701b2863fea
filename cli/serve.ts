// `deno task serve`: the engine and the kernel tests in a browser.
import { findModelFiles } from "../web/model_files.ts";
import { listen } from "../web/listen.ts";
import { createHandler } from "../web/server.ts";
import { type Command, integerOption, textOption } from "./command.ts";
import { createProgressLine } from "./progress.ts";

export const serve: Command = {
  name: "serve",
  summary: "Serves a page, to this machine alone, that runs the engine and the kernel tests on the browser's WebGPU.",
  options: {
    model: {
      value: "tiny|DIR|F.safetensors|hf:ORG/NAME[@REVISION]",
      help: "Model that the page loads: the embedded one (default), a directory, a packed file, or one of the hub.",
    },
    port: { value: "N", help: "Port (default 8000); 0 for any that is free." },
  },
  async run(options, _positionals, interrupt) {
    const port = integerOption(options, "port", 8000, 0, 65535);
    using line = createProgressLine("loading");
    const model = await findModelFiles(
      textOption(options, "model", "tiny"),
      (share, file) => line.update(share, file),
    );
    line.clear();
    const server = await listen(await createHandler(model), port, interrupt.signal).catch((cause) => {
      if (cause.code !== "EADDRINUSE") throw cause;
      throw new Error(`port ${port} is taken, must be free: choose another with --port`, { cause });
    });
    interrupt.begin();
    console.log(`http://localhost:${server.port}/ has ${model.listing.name}; Ctrl-C ends it`);
    await server.finished;
    return 0;
  },
};
