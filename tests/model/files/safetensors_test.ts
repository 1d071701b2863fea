import { writeBeside } from "../../../model/host/atomic_file.ts";
import { bytesSource } from "../../../model/files/byte_source.ts";
import { openDirectory, openSafetensors } from "../../../model/files/open_directory.ts";
import { readTensor } from "../../../model/files/read_tensor.ts";
import { loadModel } from "../../../model/load.ts";
import { bytesOf } from "../../../model/files/numbers.ts";
import {
  type Dtype,
  DTYPE_BYTES,
  readSafetensorsHeader,
  readTensorBytes,
  tensorInfo,
  tensorRows,
} from "../../../model/files/safetensors.ts";
import { type TensorToWrite, writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { readPromptFormat } from "../../../model/text/chat.ts";
import { readTokenizer } from "../../../model/text/tokenizer.ts";
import { createRandom } from "../../../quant/random.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "../../assert.ts";
import { filesIn, inDirectory } from "../../temporary.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;
const PYTHON_FILE = `${FIXTURES}dtypes.safetensors`;

/** What a file of Python's safetensors 0.8 holds. */
interface Expected {
  readonly metadata: Record<string, string>;
  /** Names in the order in which the tensors lie in the file. */
  readonly order: string[];
  readonly tensors: Record<string, { dtype: Dtype; shape: number[]; values: number[] }>;
}

async function readExpected(name: string): Promise<Expected> {
  return JSON.parse(await Deno.readTextFile(`${FIXTURES}${name}.json`));
}

/** dtypes.safetensors: tests/fixtures/make_safetensors.py */
const expected = await readExpected("dtypes");

/** Encodes values as a dtype, without help of the code under test. */
function encode(values: readonly number[], dtype: Dtype): Uint8Array<ArrayBuffer> {
  const arrays: Partial<Record<Dtype, () => ArrayBufferView<ArrayBuffer>>> = {
    F64: () => Float64Array.from(values),
    I64: () => BigInt64Array.from(values, BigInt),
    U64: () => BigUint64Array.from(values, BigInt),
    I16: () => Int16Array.from(values),
    I8: () => Int8Array.from(values),
    BOOL: () => Uint8Array.from(values),
    F32: () => Float32Array.from(values),
    F16: () => Float16Array.from(values),
    BF16: () => Uint16Array.from(values, (value) => new Uint32Array(Float32Array.of(value).buffer)[0] >>> 16),
    U32: () => Uint32Array.from(values),
    U16: () => Uint16Array.from(values),
    I32: () => Int32Array.from(values),
    U8: () => Uint8Array.from(values),
  };
  return bytesOf(arrays[dtype]!());
}

Deno.test("readTensor: files of Python's safetensors with every dtype read as written, whole and row by row", async () => {
  const dtypes = new Set<string>();
  // wide_dtypes.safetensors: tests/fixtures/make_wide_dtypes.py
  for (const fixture of ["dtypes", "wide_dtypes"]) {
    const { order, metadata, tensors } = await readExpected(fixture);
    using file = await openSafetensors(`${FIXTURES}${fixture}.safetensors`);
    assertEquals([...file.tensors.keys()], order);
    assertEquals({ ...file.metadata }, metadata);
    for (const [name, { dtype, shape, values }] of Object.entries(tensors)) {
      const info = tensorInfo(file, name);
      assertEquals([info.dtype, [...info.shape]], [dtype, shape]);
      const rows = Array.from({ length: shape[0] ?? 0 }, (_, row) => readTensor(file, tensorRows(info, row, 1)));
      const [whole, ...parts] = await Promise.all([readTensor(file, name), ...rows]);
      for (const found of [[...whole], ...(rows.length > 0 ? [parts.flatMap((part) => [...part])] : [])]) {
        assertEquals(found.length, values.length);
        for (const [i, value] of found.entries()) {
          assert(Number(value) === values[i], `${name}[${i}] is ${value}, not ${values[i]}`);
        }
      }
      dtypes.add(dtype);
    }
  }
  // What numpy has no type for is told by its size alone, below.
  const others = Object.keys(DTYPE_BYTES).filter((dtype) => !/^(F[468]_?|C64)/.test(dtype) || dtype === "F64");
  assertEquals([...dtypes].sort(), others.sort());
});

Deno.test("readTensor, tensorRows: a tensor or rows that aren't there are refused", async () => {
  using file = await openSafetensors(PYTHON_FILE);
  await assertRejects(() => readTensor(file, "no"), SyntaxError, `${PYTHON_FILE}: no tensor no`);
  for (const [first, count] of [[-1, 1], [1, 2], [0.5, 1], [2, 1], [0, NaN]]) {
    assertThrows(() => tensorRows(tensorInfo(file, "cube"), first, count), RangeError, "must lie within 0..2");
  }
  assertThrows(() => tensorRows(tensorInfo(file, "scalar"), 0, 1), RangeError, "of tensor scalar asked for");
  assertEquals((await readTensor(file, tensorRows(tensorInfo(file, "cube"), 2, 0))).length, 0);
});

Deno.test("writeSafetensors: what Python wrote comes out byte for byte", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/out.safetensors`;
  const asked: string[] = [];
  const tensors = expected.order.map((name): TensorToWrite => {
    const { dtype, shape, values } = expected.tensors[name];
    const bytes = () => {
      asked.push(name);
      return encode(values, dtype);
    };
    return { name, dtype, shape, bytes };
  });
  await writeSafetensors(path, tensors, expected.metadata);
  assertEquals(await Deno.readFile(path), await Deno.readFile(PYTHON_FILE));
  assertEquals(asked, expected.order);
  assertEquals(Array.from(Deno.readDirSync(directory), ({ name }) => name), ["out.safetensors"]);
  await Deno.remove(directory, { recursive: true });
});

/** A safetensors file from the text (or bytes) of its header and its data. */
function fileOf(header: string | Uint8Array, dataBytes: number, headerLength?: bigint): Uint8Array<ArrayBuffer> {
  const head = typeof header === "string" ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + head.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, headerLength ?? BigInt(head.length), true);
  bytes.set(head, 8);
  return bytes;
}

const read = (bytes: Uint8Array) => readSafetensorsHeader(bytesSource("f.safetensors", bytes));
const u8 = (begin: number, end: number) => `{"dtype":"U8","shape":[${end - begin}],"data_offsets":[${begin},${end}]}`;

/** Spoilt files, and at which offset what is reported. */
const CORRUPT: readonly (readonly [what: string, file: Uint8Array, offset: number, message: string])[] = [
  ["empty file", new Uint8Array(0), 0, "file has 0 bytes, must have at least 8"],
  ["seven bytes", new Uint8Array(7), 0, "file has 7 bytes"],
  ["header longer than the file", fileOf("{}", 0, 3n), 0, "header length is 3, but only 2 bytes follow"],
  ["header above 100 MB", fileOf("{}", 0, 100_000_001n), 0, "must be at most 100000000"],
  ["header of 2^63 bytes", fileOf("{}", 0, 2n ** 63n), 0, "must be at most 100000000"],
  ["header of 2^64 - 1 bytes", fileOf("{}", 0, 2n ** 64n - 1n), 0, "must be at most 100000000"],
  ["empty header", fileOf("", 0), 8, "not valid JSON"],
  ["not JSON", fileOf("{'a':1}", 0), 8, "not valid JSON"],
  ["JSON cut short", fileOf('{"a":', 0), 8, "not valid JSON"],
  ["an array", fileOf("[]", 0), 8, "not a JSON object"],
  ["null", fileOf("null", 0), 8, "not a JSON object"],
  ["bad UTF-8", fileOf(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d), 0), 8, "not valid UTF-8"],
  ["UTF-8 of a surrogate", fileOf(Uint8Array.of(0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x7d), 0), 8, "not valid UTF-8"],
  ["unknown dtype", fileOf('{"a":{"dtype":"F8","shape":[1],"data_offsets":[0,1]}}', 1), 61, 'has dtype "F8"'],
  ["dtype of the prototype", fileOf('{"a":{"dtype":"toString","shape":[],"data_offsets":[0,0]}}', 0), 66, "dtype"],
  ["no dtype", fileOf('{"a":{"shape":[1],"data_offsets":[0,1]}}', 1), 48, "has dtype undefined"],
  ["wrong size", fileOf('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,3]}}', 3), 62, "3 bytes, must have 4"],
  [
    "size beyond 2^53",
    fileOf('{"a":{"dtype":"U8","shape":[9007199254740991,9],"data_offsets":[0,9]}}', 9),
    78,
    "9 bytes",
  ],
  ["negative offset", fileOf('{"a":{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}}', 0), 8, "data_offsets [-1,0]"],
  ["backward offsets", fileOf('{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}', 1), 8, "data_offsets [1,0]"],
  [
    "fractional offset",
    fileOf('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1.5]}}', 1),
    8,
    "data_offsets [0,1.5]",
  ],
  ["offset beyond 2^53", fileOf('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1e20]}}', 1), 8, "data_offsets"],
  ["one offset", fileOf('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}}', 1), 8, "data_offsets [0]"],
  ["negative length", fileOf('{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', 1), 8, "shape [-1]"],
  ["length as text", fileOf('{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}', 1), 8, 'shape ["1"]'],
  ["entry null", fileOf('{"a":null}', 0), 8, "tensor a has shape undefined"],
  ["entry a number", fileOf('{"a":4}', 0), 8, "tensor a has shape undefined"],
  ["overlap", fileOf(`{"a":${u8(0, 4)},"b":${u8(3, 5)}}`, 5), 116, "tensor b starts here and overlaps"],
  ["same place", fileOf(`{"a":${u8(0, 4)},"b":${u8(0, 4)}}`, 4), 113, "tensor b starts here and overlaps"],
  ["gap", fileOf(`{"a":${u8(0, 2)},"b":${u8(3, 5)}}`, 5), 116, "tensor b starts here and leaves a gap"],
  ["gap in front", fileOf(`{"a":${u8(1, 2)}}`, 2), 62, "tensor a starts here and leaves a gap"],
  ["trailing byte", fileOf(`{"a":${u8(0, 2)}}`, 3), 63, "tensors end here, but the file ends at 64"],
  ["missing byte", fileOf(`{"a":${u8(0, 2)}}`, 1), 63, "tensors end here, but the file ends at 62"],
  ["no tensors but data", fileOf("{}", 1), 10, "tensors end here, but the file ends at 11"],
  ["name twice", fileOf(`{"a":${u8(0, 2)},"a":${u8(0, 2)}}`, 2), 61, "tensor a is listed twice"],
  ["name twice, once escaped", fileOf(`{"a":${u8(0, 2)},"\\u0061":${u8(0, 2)}}`, 2), 61, "tensor a is listed twice"],
  ["metadata of numbers", fileOf('{"__metadata__":{"a":1}}', 0), 8, "__metadata__ is not an object of strings"],
  [
    "a git-lfs pointer",
    new TextEncoder().encode("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234567\n"),
    0,
    "this is a git-lfs pointer in place of the file",
  ],
  ["a name that a terminal obeys", fileOf('{"\\u001b[31m":null}', 0), 8, "tensor \\u{1b}[31m has shape undefined"],
];

for (const [what, bytes, offset, message] of CORRUPT) {
  Deno.test(`readSafetensorsHeader: ${what} is refused with file and offset`, async () => {
    const error = await assertRejects(() => read(bytes), SyntaxError, message);
    assertStringIncludes(error.message, `f.safetensors, byte ${offset}: `);
  });
}

Deno.test("readSafetensorsHeader: null metadata is none, and small floats have Rust's sizes", async () => {
  const sizes = { C64: 32, F8_E4M3: 4, F8_E5M2: 4, F8_E8M0: 4, F6_E2M3: 3, F6_E3M2: 3, F4: 2 };
  for (const [dtype, size] of Object.entries(sizes)) {
    const entry = `"a":{"dtype":"${dtype}","shape":[2,2],"data_offsets":[0,${size}]}`;
    const file = await read(fileOf(`{"__metadata__":null,${entry}}`, size));
    assertEquals([file.metadata, (await readTensor(file, "a")).byteLength], [{}, size]);
  }
});

Deno.test("readSafetensorsHeader: a key that occurs twice below the top level is no duplicate tensor", async () => {
  const { tensors } = await read(fileOf(`{"dtype":${u8(0, 1)},"shape":${u8(1, 2)},"}{":${u8(2, 3)}}`, 3));
  assertEquals([...tensors.keys()], ["dtype", "shape", "}{"]);
});

Deno.test("readSafetensorsHeader: empty tensors may lie anywhere between others", async () => {
  const { tensors } = await read(fileOf(`{"c":${u8(2, 2)},"b":${u8(0, 2)},"a":${u8(0, 0)}}  `, 2));
  assertEquals([...tensors.keys()], ["a", "b", "c"]);
});

Deno.test("readSafetensorsHeader: a file cut at any byte is refused", async () => {
  const bytes = await Deno.readFile(PYTHON_FILE);
  for (let length = 0; length < bytes.length; length++) {
    const error = await assertRejects(
      () => read(bytes.subarray(0, length)),
      SyntaxError,
      undefined,
      `cut at ${length}`,
    );
    assertStringIncludes(error.message, "f.safetensors, byte ");
  }
});

Deno.test("readSafetensorsHeader: 2,000 files with random bytes changed read or give a SyntaxError", async () => {
  const original = await Deno.readFile(PYTHON_FILE);
  const headerEnd = 8 + Number(new DataView(original.buffer).getBigUint64(0, true));
  const random = createRandom(5);
  let refused = 0;
  for (let i = 0; i < 2000; i++) {
    const bytes = original.slice();
    for (let flips = 1 + random.integer(3); flips > 0; flips--) {
      bytes[random.integer(headerEnd)] ^= 1 << random.integer(8);
    }
    try {
      const file = await read(bytes);
      for (const info of file.tensors.values()) {
        assertEquals((await readTensorBytes(file, info)).length, info.sizeBytes);
      }
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      assertStringIncludes(error.message, "f.safetensors, byte ");
      refused++;
    }
  }
  assert(refused > 1000, `only ${refused} were refused`);
});

Deno.test("writeSafetensors: when it fails it leaves the old file and nothing else", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.safetensors`;
    await Deno.writeTextFile(path, "old");
    const good: TensorToWrite = { name: "a", dtype: "U8", shape: [2], bytes: () => new Uint8Array(2) };
    const cases: readonly (readonly [TensorToWrite[], new (message: string) => Error, string])[] = [
      [[good, { ...good, name: "b", bytes: () => new Uint8Array(3) }], TypeError, "tensor b has 3 bytes, must have 2"],
      [[good, good], TypeError, "tensor a is given twice"],
      [[{ ...good, name: "__metadata__" }], TypeError, "__metadata__"],
      [[good, { ...good, name: "b", bytes: () => Promise.reject(new RangeError("no b")) }], RangeError, "no b"],
    ];
    for (const [tensors, kind, message] of cases) {
      await assertRejects(() => writeSafetensors(path, tensors, {}), kind, message);
      assertEquals(filesIn(directory), ["a.safetensors"]);
      assertEquals(await Deno.readTextFile(path), "old");
    }
  }));

Deno.test("writeBeside: a full disk is named with the path, and nothing is left", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a`;
    await Deno.symlink("/dev/full", `${path}.partial-${Deno.pid}`);
    const full = () => writeBeside(path, (write) => write(new Uint8Array(10)));
    await assertRejects(full, Error, `${path} cannot be written: No space left on device`);
    assertEquals(filesIn(directory), []);
  }));

Deno.test("writeBeside: replaces the file only when it is whole; leaves nothing when the rename fails", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a`;
    await Deno.writeTextFile(path, "old");
    await writeBeside(path, async (write) => {
      await write(new TextEncoder().encode("ne"));
      assertEquals(await Deno.readTextFile(path), "old");
      await write(new TextEncoder().encode("w"));
    });
    assertEquals([await Deno.readTextFile(path), filesIn(directory)], ["new", ["a"]]);
    await Deno.mkdir(`${directory}/b/c`, { recursive: true });
    await assertRejects(() => writeBeside(`${directory}/b`, () => Promise.resolve()), Error);
    assertEquals(filesIn(directory), ["a", "b"]);
    await assertRejects(() => writeBeside(`${directory}/no/x`, () => Promise.resolve()), Deno.errors.NotFound);
    assertEquals(filesIn(directory), ["a", "b"]);
  }));

/** Smallest tokenizer.json that fits the fixtures' 96 tokens. */
const TOKENIZER = JSON.stringify({
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  model: { type: "BPE", vocab: { a: 0 }, merges: [] },
});

const INDEX = "model.safetensors.index.json";

/** Copies the sharded fixture, lets `change` spoil it and returns the error of loading it. */
async function loadSpoilt(
  change: (directory: string, weightMap: Record<string, string>) => Promise<void>,
  message: string,
  load: (directory: string) => Promise<unknown> = loadModel,
): Promise<void> {
  await inDirectory(async (directory) => {
    for (const name of filesIn(`${FIXTURES}llama3_scaled_bias`)) {
      await Deno.copyFile(`${FIXTURES}llama3_scaled_bias/${name}`, `${directory}/${name}`);
    }
    await Deno.writeTextFile(`${directory}/tokenizer.json`, TOKENIZER);
    const { weight_map: weightMap } = JSON.parse(await Deno.readTextFile(`${directory}/${INDEX}`));
    await change(directory, weightMap);
    await Deno.writeTextFile(`${directory}/${INDEX}`, JSON.stringify({ weight_map: weightMap }));
    await assertRejects(() => load(directory), SyntaxError, message);
  });
}

const SHARD = "model-00002-of-00003.safetensors";

const POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234567\n";

for (const file of ["config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja"]) {
  Deno.test(`a git-lfs pointer in the place of ${file} is called so`, () =>
    loadSpoilt(
      (directory) => Deno.writeTextFile(`${directory}/${file}`, POINTER),
      `${file}: this is a git-lfs pointer in place of the file, must be fetched with git lfs pull`,
      async (directory) => {
        using checkpoint = await openDirectory(directory);
        await readPromptFormat(checkpoint, await readTokenizer(checkpoint));
      },
    ));
}

Deno.test("loadModel: a tensor that the index leaves out is named", () =>
  loadSpoilt((_, weightMap) => {
    delete weightMap["model.norm.weight"];
    return Promise.resolve();
  }, "no tensor model.norm.weight"));

for (const missing of ["model.layers.1.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.bias", "lm_head.weight"]) {
  Deno.test(`openModel: ${missing} that is missing is noticed before anything is read`, () =>
    loadSpoilt(
      (_, weightMap) => {
        delete weightMap[missing];
        return Promise.resolve();
      },
      `no tensor ${missing}`,
      openDirectory,
    ));
}

Deno.test("loadModel: a tensor that its shard doesn't hold is named with the shard", () =>
  loadSpoilt((_, weightMap) => {
    weightMap["model.extra.weight"] = SHARD;
    return Promise.resolve();
  }, `${SHARD}: no tensor model.extra.weight`));

for (const path of ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.bin", ""]) {
  Deno.test(`loadModel: an index that points to ${JSON.stringify(path)} is refused`, () =>
    loadSpoilt((_, weightMap) => {
      weightMap["model.norm.weight"] = path;
      return Promise.resolve();
    }, `model.norm.weight is in ${JSON.stringify(path)}, must be the name of a .safetensors file`));
}

Deno.test("loadModel: a shard that is missing is named", () =>
  loadSpoilt(async (directory) => await Deno.remove(`${directory}/${SHARD}`), `${SHARD} is missing`));

Deno.test("loadModel: a shard cut short is refused with its name", () =>
  loadSpoilt(async (directory) => await Deno.truncate(`${directory}/${SHARD}`, 5000), `${SHARD}, byte `));
