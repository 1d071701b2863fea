import { createHash } from "node:crypto";
import { loadModel } from "../../../model/load.ts";
import type { Tokenizer } from "../../../model/text/tokenizer.ts";
import { loadText } from "../../../model/text/text.ts";
import { countWindows, cutWindows, joinTokens, sampleWindows } from "../../../model/text/windows.ts";
import { assert, assertEquals, assertThrows } from "../../assert.ts";

/** A tokenizer whose tokens are UTF-16 units, so that windows can be read. */
const UNITS: Tokenizer = {
  encode: (text) => Uint32Array.from(text, (char) => char.charCodeAt(0)),
  decode: (tokens) => String.fromCharCode(...Array.from(tokens)),
  vocabulary: 1 << 16,
  prefix: Uint32Array.of(7),
};

const TEXT = { name: "t", documents: [] };

const countTo = (length: number) => Uint32Array.from({ length }, (_, i) => 100 + i);

Deno.test("joinTokens: BOS before each document", () => {
  const text = { name: "t", documents: ["ab", "", "c"] };
  assertEquals(Array.from(joinTokens(text, UNITS)), [7, 97, 98, 7, 7, 99]);
});

Deno.test("cutWindows: pieces at even distances, BOS in front, remainder left out", () => {
  // 23 tokens make 5 pieces of 4; two of five are pieces 0 and 2, three are 0, 1 and 3.
  const cut = (count: number) => cutWindows(TEXT, countTo(23), UNITS, { length: 5, count });
  assertEquals(cut(2).windows.map((window) => Array.from(window)), [[7, 100, 101, 102, 103], [7, 108, 109, 110, 111]]);
  assertEquals(cut(3).windows.map((window) => window[1]), [100, 104, 112]);
  assertEquals(cut(5).windows.map((window) => window[1]), [100, 104, 108, 112, 116]);
  assertEquals(cut(99).windows, cut(5).windows);
  assertEquals([cut(2).text, cut(2).textTokens], ["t", 23]);
});

Deno.test("cutWindows: no token of a text is in two windows, for any number of windows", () => {
  for (let count = 1; count <= 40; count++) {
    const { windows } = cutWindows(TEXT, countTo(200), UNITS, { length: 6, count });
    assertEquals(windows.length, Math.min(count, 40));
    const taken = windows.flatMap((window) => Array.from(window.subarray(1)));
    assertEquals(new Set(taken).size, 5 * windows.length);
    for (const window of windows) {
      assertEquals(window[0], 7);
      assertEquals(Array.from(window.subarray(1)), Array.from(countTo(5), (i) => i - 100 + window[1]));
    }
  }
});

Deno.test("cutWindows: exactly one window fits, one token fewer doesn't", () => {
  assertEquals(cutWindows(TEXT, countTo(4), UNITS, { length: 5, count: 3 }).windows.length, 1);
  assertThrows(
    () => cutWindows(TEXT, countTo(3), UNITS, { length: 5, count: 1 }),
    RangeError,
    "text t has 3 tokens, must have at least 4",
  );
});

Deno.test("windows: nothing stands in front where the tokenizer puts nothing there, and a window needs room for a token", () => {
  const bare: Tokenizer = { ...UNITS, prefix: new Uint32Array(0) };
  const text = { name: "t", documents: ["ab", "c".repeat(60)] };
  assertEquals(Array.from(joinTokens({ ...text, documents: ["ab", "c"] }, bare)), [97, 98, 99]);
  const { windows, plain } = cutWindows(TEXT, countTo(10), bare, { length: 5, count: 9 });
  assertEquals([windows.map((window) => Array.from(window)), plain], [[[100, 101, 102, 103, 104], [
    105,
    106,
    107,
    108,
    109,
  ]], true]);
  assertEquals(sampleWindows(text, bare, { length: 5, count: 1 }).windows.map((window) => bare.decode(window)), [
    "ccccc",
  ]);
  for (
    const cut of [
      () => cutWindows(TEXT, countTo(10), UNITS, { length: 1, count: 1 }),
      () => sampleWindows(text, UNITS, { length: 1, count: 1 }),
    ]
  ) {
    assertThrows(cut, RangeError, "windows have 1 tokens, must have more than the 1 in front of a text");
  }
});

Deno.test("sampleWindows: each window lies within one document that is long enough, in order", () => {
  // Windows of 3 tokens take excerpts of 24 characters: the second document is too short.
  const documents = ["a".repeat(50), "b".repeat(23), "c".repeat(24), "d".repeat(100)];
  const sample = (count: number) => sampleWindows({ name: "t", documents }, UNITS, { length: 3, count });
  const letters = (count: number) => sample(count).windows.map((window) => UNITS.decode(window.subarray(1)));
  // Characters 43.5 and 130.5 of the 174 lie in the first and the last document.
  assertEquals(letters(2), ["aa", "dd"]);
  // 14.5, 43.5, 72.5, 101.5, 130.5, 159.5.
  assertEquals(letters(6), ["aa", "aa", "cc", "dd", "dd", "dd"]);
  assert(sample(6).windows.every((window) => window.length === 3 && window[0] === 7));
  assertEquals([sample(6).text, sample(6).textTokens], ["t", 12]);
});

Deno.test("sampleWindows: starts at the middle of equal parts of the text, at the latest where an excerpt still fits", () => {
  const document = String.fromCharCode(...Array.from({ length: 100 }, (_, i) => 200 + i));
  const { windows } = sampleWindows({ name: "t", documents: [document] }, UNITS, { length: 3, count: 4 });
  assertEquals(windows.map((window) => window[1] - 200), [12, 37, 62, 76]);
});

Deno.test("sampleWindows: a window that would start where a document ends lies in the next one", () => {
  // The middle of 100 characters is the border; the last character before it lies in the first document.
  const border = { name: "t", documents: ["a".repeat(50), "b".repeat(50)] };
  const [window] = sampleWindows(border, UNITS, { length: 3, count: 1 }).windows;
  assertEquals(UNITS.decode(window.subarray(1)), "bb");
  const before = { name: "t", documents: ["a".repeat(52), "b".repeat(50)] };
  const [other] = sampleWindows(before, UNITS, { length: 3, count: 1 }).windows;
  assertEquals(UNITS.decode(other.subarray(1)), "aa");
});

Deno.test("sampleWindows: where excerpts no longer fit windows follow each other, and the last tokens are one window", () => {
  // Windows of 2 tokens behind the 7 and excerpts of 24 characters of 30: excerpts fit up to 6. Wanted are 1, 4, 7, ..., 28.
  const document = String.fromCharCode(...Array.from({ length: 30 }, (_, i) => 200 + i));
  const starts = (documents: string[], count: number) =>
    sampleWindows({ name: "t", documents }, UNITS, { length: 3, count }).windows.map((window) => window[1] - 200);
  assertEquals(starts([document], 10), [1, 4, 6, 8, 10, 12, 14, 16, 18, 20]);
  // Of 30 windows, wanted at 0, 1, ..., 29, the last has one character left, which the one before it has already.
  assertEquals(starts([document], 30), Array.from({ length: 29 }, (_, i) => i));
  // Of 29 characters 15 windows are wanted at 0, 2, ..., 28: the last one, with one character left, becomes the last two.
  assertEquals(starts([document.slice(0, 29)], 15), [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 27]);
  // The next document begins anew.
  assertEquals(starts([document, document], 20), [
    1,
    4,
    6,
    8,
    10,
    12,
    14,
    16,
    18,
    20,
    1,
    4,
    6,
    8,
    10,
    12,
    14,
    16,
    18,
    20,
  ]);
});

Deno.test("countWindows: windows of a short text overlap, at most twice as many as it has tokens for", () => {
  // Windows of 4 tokens behind the 7 take documents of 48 characters: the second is too short.
  const documents = [String.fromCharCode(...Array.from({ length: 60 }, (_, i) => 200 + i)), "b".repeat(47)];
  const text = { name: "t", documents };
  const count = (count: number) => countWindows(text, UNITS, { length: 5, count });
  assertEquals([1, 15, 16, 30, 31, 400].map(count), [1, 15, 16, 30, 30, 30]);
  const starts = (count: number) =>
    sampleWindows(text, UNITS, { length: 5, count }).windows.map((window) => window[1] - 200);
  // 20 windows start every 3 tokens, from the middle of the first 3 on; the 60 tokens end behind the one at 56.
  assertEquals(starts(20), [...Array.from({ length: 19 }, (_, i) => 1 + 3 * i), 56]);
  // 30 start every 2; where 3 tokens are left stand the last 4 tokens, which end the text.
  assertEquals(starts(count(400)), [...Array.from({ length: 28 }, (_, i) => 1 + 2 * i), 56]);
  assertThrows(
    () => countWindows({ name: "t", documents: ["b"] }, UNITS, { length: 5, count: 1 }),
    RangeError,
    "text t has no document of 48 characters",
  );
});

Deno.test("sampleWindows: windows of the mix don't repeat, and those that end a source are its last tokens", async () => {
  const { tokenizer } = await loadModel("tiny");
  const text = await loadText("mix");
  const { windows } = sampleWindows(text, tokenizer, { length: 2048, count: 128 });
  assertEquals([windows.length, new Set(windows.map((window) => tokenizer.decode(window))).size], [128, 128]);
  assert(windows.every((window) => window.length === 2048));
});

Deno.test("sampleWindows: the windows that results were calibrated on", async () => {
  const { tokenizer } = await loadModel("tiny");
  const { windows } = sampleWindows(await loadText("calibration"), tokenizer, { length: 512, count: 40 });
  const hash = createHash("sha256");
  for (const window of windows) hash.update(new Uint8Array(window.buffer));
  // Taken before windows learnt to follow each other, when the tables in results/ were made.
  assertEquals(hash.digest("hex").slice(0, 16), "ea2ff938192617fe");
});

Deno.test("sampleWindows: texts that are too short or have too few tokens are refused", () => {
  assertThrows(
    () => sampleWindows({ name: "t", documents: ["a".repeat(23)] }, UNITS, { length: 3, count: 1 }),
    RangeError,
    "text t has no document of 24 characters",
  );
  const sparse: Tokenizer = { ...UNITS, encode: () => Uint32Array.of(1) };
  assertThrows(
    () => sampleWindows({ name: "t", documents: ["a".repeat(24)] }, sparse, { length: 3, count: 1 }),
    RangeError,
    "24 characters of t have 1 tokens, must have 2",
  );
});

Deno.test("sampleWindows: windows of the calibration text repeat and are verbatim pieces of single documents", async () => {
  const { tokenizer } = await loadModel("tiny");
  const text = await loadText("calibration");
  const plan = { length: 64, count: 12 };
  const { windows } = sampleWindows(text, tokenizer, plan);
  assertEquals(sampleWindows(text, tokenizer, plan).windows, windows);
  assertEquals(windows.length, 12);
  const pieces = windows.map((window) => tokenizer.decode(window.subarray(1)));
  for (const piece of pieces) assert(text.documents.some((document) => document.includes(piece)), piece);
  assertEquals(new Set(pieces).size, 12);
});
