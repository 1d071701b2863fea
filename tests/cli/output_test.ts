import { createProgressLine } from "../../cli/progress.ts";
import { writeText } from "../../cli/write_text.ts";
import { assertEquals, assertRejects } from "../assert.ts";

/** An output that takes at most `most` bytes at once. */
function createOutput(most: number) {
  const taken: number[] = [];
  return {
    taken,
    write(bytes: Uint8Array) {
      const part = bytes.subarray(0, most);
      taken.push(...part);
      return Promise.resolve(part.length);
    },
  };
}

Deno.test("writeText: all bytes arrive where the output takes some at a time", async () => {
  const output = createOutput(3);
  assertEquals(await writeText(output, "Ahab – ⅔ of a 🐋"), true);
  assertEquals(new TextDecoder().decode(Uint8Array.from(output.taken)), "Ahab – ⅔ of a 🐋");
});

Deno.test("writeText: false where the pipe is broken; other errors go on", async () => {
  const failing = (error: Error) => ({ write: () => Promise.reject(error) });
  assertEquals(await writeText(failing(new Deno.errors.BrokenPipe("gone")), "text"), false);
  await assertRejects(() => writeText(failing(new Error("disk full")), "text"), Error, "disk full");
});

/** A terminal that keeps what was written. */
function createTerminal() {
  const written: string[] = [];
  return {
    written,
    isTerminal: () => true,
    writeSync(bytes: Uint8Array) {
      written.push(new TextDecoder().decode(bytes));
      return bytes.length;
    },
  };
}

Deno.test("createProgressLine: the line is removed when the work throws", () => {
  const terminal = createTerminal();
  const fail = () => {
    using line = createProgressLine("quantize", terminal);
    line.update(0.5, "layer 1");
    throw new RangeError("no");
  };
  try {
    fail();
  } catch { /* as intended */ }
  assertEquals(terminal.written, ["\r\x1b[2Kquantize: 50 % layer 1 (0.0 s, 0.0 s left)", "\r\x1b[2K"]);
});

Deno.test("createProgressLine: where there is no terminal, a line for each step with the time left, and nothing else", () => {
  const output = { ...createTerminal(), isTerminal: () => false };
  {
    using line = createProgressLine("quantize", output);
    line.update(0.1, "model.layers.0.self_attn.q_proj");
    line.step(0, "row that was known");
    line.step(0.5, "layer 1 of 2");
    line.step(1, "layer 2 of 2");
  }
  assertEquals(output.written, [
    "quantize: row that was known, 0.0 s\n",
    "quantize: layer 1 of 2, 0.0 s, about 0.0 s left\n",
    "quantize: layer 2 of 2, 0.0 s\n",
  ]);
  const terminal = createTerminal();
  createProgressLine("quantize", terminal).step(0.5, "layer 1 of 2");
  assertEquals(terminal.written, []);
});

Deno.test("createProgressLine: what was removed or never shown isn't removed again", () => {
  const terminal = createTerminal();
  {
    using line = createProgressLine("a", terminal);
    line.update(0, "b");
    line.clear();
  }
  {
    using _unused = createProgressLine("c", terminal);
  }
  assertEquals(terminal.written, ["\r\x1b[2Ka: 0 % b (0.0 s)", "\r\x1b[2K"]);
});
