// `deno task dequantize`: a packed file back to a Hugging Face directory.
import { writeHuggingFaceDirectory } from "../model/files/huggingface_writer.ts";
import { type Command, textOption, UsageError } from "./command.ts";
import { openPackedOption } from "./packed_option.ts";
import { createProgressLine } from "./progress.ts";

/** Decodes a packed file into a Hugging Face directory in f16. */
export const dequantize: Command = {
  name: "dequantize",
  summary: "Decodes a packed file into a Hugging Face directory in f16 that transformers and others load.",
  options: {
    in: { value: "F.safetensors", help: "Packed file; required." },
    out: { value: "DIR", help: "Directory to write; required, must not exist." },
  },
  async run(options) {
    const [input, out] = [textOption(options, "in", ""), textOption(options, "out", "")];
    if (input === "" || out === "") throw new UsageError("--in and --out are needed");
    using checkpoint = await openPackedOption("in", input);
    using line = createProgressLine("dequantize");
    await writeHuggingFaceDirectory(checkpoint, out, (share, step) => line.update(share, step));
    line.clear();
    console.log(`${out}: ${checkpoint.packed.size} matrices decoded to f16`);
    return 0;
  },
};
