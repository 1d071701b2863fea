import { openDirectory } from "../../../model/files/open_directory.ts";
import { openGguf } from "../../../model/files/gguf_checkpoint.ts";
import { parseJsonObject } from "../../../model/host/json.ts";
import { openPacked } from "../../../model/files/open_packed.ts";
import { readTokenizer } from "../../../model/text/tokenizer.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "../../assert.ts";
import { inDirectory } from "../../temporary.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;

Deno.test("parseJsonObject: nesting and strings are bounded, and the file is named", () => {
  const nested = (depth: number) => `{"a":`.repeat(depth) + "1" + "}".repeat(depth);
  assertEquals(parseJsonObject("f", nested(64)).name, "f");
  assertThrows(
    () => parseJsonObject("f", nested(65)),
    SyntaxError,
    "f is not valid JSON: nested deeper than 64 levels",
  );
  assertThrows(() => parseJsonObject("f", `{"a":${"[".repeat(1e6)}`), SyntaxError, "nested deeper than 64 levels");
  const text = (length: number) => `{"a":"${"x".repeat(length)}"}`;
  assertEquals((parseJsonObject("f", text(2 ** 20 - 1)).fields.a as string).length, 2 ** 20 - 1);
  assertThrows(() => parseJsonObject("f", text(2 ** 20 + 1)), SyntaxError, "string of 1048577 characters");
  assertThrows(() => parseJsonObject("f", `{"a":"${"\\".repeat(2 ** 21)}`), SyntaxError, "f is not valid JSON");
  // Brackets and escaped quotes within strings don't count.
  assertEquals(parseJsonObject("f", `{"a":"${"[".repeat(100)}\\"{"}`).fields.a, "[".repeat(100) + '"{');
});

Deno.test("openDirectory: a tokenizer or configuration that fills the memory is refused before it is read", () =>
  inDirectory(async (directory) => {
    for (const file of ["config.json", "model.safetensors"]) {
      await Deno.copyFile(`${FIXTURES}llama_tied_gqa/${file}`, `${directory}/${file}`);
    }
    const write = async (name: string, bytes: number) => {
      using file = await Deno.create(`${directory}/${name}`);
      await file.truncate(bytes); // sparse: takes no space
    };
    await write("tokenizer.json", 2 ** 32);
    using checkpoint = await openDirectory(directory);
    await assertRejects(() => readTokenizer(checkpoint), SyntaxError, "tokenizer.json has 4294967296 bytes");
    await write("config.json", 2 ** 32);
    await assertRejects(() => openDirectory(directory), SyntaxError, "config.json has 4294967296 bytes");
  }));

Deno.test("openPacked: a header nested without end is refused", () =>
  inDirectory(async (directory) => {
    const header = new TextEncoder().encode(`{"a":${"[".repeat(1000)}`);
    const file = new Uint8Array(8 + header.length);
    new DataView(file.buffer).setBigUint64(0, BigInt(header.length), true);
    file.set(header, 8);
    await Deno.writeFile(`${directory}/f`, file);
    await assertRejects(() => openPacked(`${directory}/f`), SyntaxError, "nested deeper than 64 levels");
  }));

/** Writes a GGUF file with some bytes changed, opens it and reads all that it offers. */
async function readGguf(path: string, bytes: Uint8Array): Promise<void> {
  await Deno.writeFile(path, bytes);
  using checkpoint = await openGguf(path);
  await readTokenizer(checkpoint);
  for (const { name, shape } of checkpoint.tensors) {
    assert((await checkpoint.read(name, shape)).every(Number.isFinite));
  }
}

const GGUF = await Deno.readFile(`${FIXTURES}gguf/llama_spm.gguf`);

/** Where a text occurs in the file. */
function find(text: string): number {
  const wanted = new TextEncoder().encode(text);
  const at = GGUF.findIndex((_, i) => wanted.every((byte, k) => GGUF[i + k] === byte));
  assert(at > 0, text);
  return at + wanted.length;
}

const HUGE: readonly (readonly [what: string, at: number, value: bigint])[] = [
  ["tensors", 8, 2n ** 63n],
  ["tensors", 8, 9_000_000n],
  ["metadata entries", 16, 2n ** 40n],
  ["metadata entries", 16, 99_000n],
  ["characters of a key", 24, 2n ** 62n],
  ["characters of a key", 24, 9_000_000n],
  ["tokens", find("tokenizer.ggml.tokens") + 8, 2n ** 60n],
  ["tokens", find("tokenizer.ggml.tokens") + 8, 999_999n],
  ["scores", find("tokenizer.ggml.scores") + 8, 999_999n],
  ["rows of a tensor", find("token_embd.weight") + 12, 2n ** 50n],
  ["rows of a tensor", find("token_embd.weight") + 12, 2n ** 31n],
  ["rows of a tensor", find("token_embd.weight") + 12, 0n],
  ["offset of a tensor", find("token_embd.weight") + 24, 2n ** 62n],
];

for (const [what, at, value] of HUGE) {
  Deno.test(`openGguf: ${value} as the number of ${what} is a SyntaxError that names the file`, () =>
    inDirectory(async (directory) => {
      const bytes = GGUF.slice();
      new DataView(bytes.buffer).setBigUint64(at, value, true);
      const path = `${directory}/hostile.gguf`;
      await assertRejects(() => readGguf(path, bytes), SyntaxError, path);
    }));
}

Deno.test("openGguf: a file cut anywhere is refused", () =>
  inDirectory(async (directory) => {
    for (let length = 0; length < GGUF.length; length += 997) {
      await assertRejects(
        () => readGguf(`${directory}/f.gguf`, GGUF.subarray(0, length)),
        SyntaxError,
        "f.gguf",
        `cut at ${length}`,
      );
    }
  }));

Deno.test("openGguf: 400 random byte flips give an error that names the file or finite weights", () =>
  inDirectory(async (directory) => {
    const random = createRandom(11);
    const dataStart = 24_000;
    let refused = 0;
    for (let i = 0; i < 400; i++) {
      const bytes = GGUF.slice();
      bytes[random.integer(i % 4 === 0 ? bytes.length : dataStart)] ^= 1 << random.integer(8);
      try {
        await readGguf(`${directory}/f.gguf`, bytes);
      } catch (error) {
        if (!(error instanceof SyntaxError) || !error.message.includes("f.gguf")) throw error;
        refused++;
      }
    }
    assert(refused > 20, `${refused} of 400 flips were refused`);
  }));
