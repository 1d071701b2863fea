import { noteCalibration, noteOutOfLine } from "../../cli/quantize_notes.ts";
import { assertEquals } from "../assert.ts";

Deno.test("noteCalibration: few tokens where targets are corrected, and why the model wrote none itself", () => {
  const few = { calibration: "mix", tokens: 39_999 };
  const note = "correcting by 39999 calibration tokens: more make it surer, up to about 40000 (--windows)";
  assertEquals(noteCalibration(few, { method: "corrected" }), [note]);
  assertEquals(noteCalibration(few, { method: "feedback" }), []);
  assertEquals(noteCalibration({ ...few, tokens: 40_000 }, { method: "corrected" }), []);
  assertEquals(noteCalibration({ ...few, reason: "no room" }, { method: "corrected" }), [
    "calibrating on mix alone, without self: no room",
    note,
  ]);
  assertEquals(noteCalibration({ ...few, whyFewer: "no room" }, { method: "feedback" }), [
    "calibrating on 39999 tokens, fewer than by default: no room",
  ]);
});

Deno.test("noteOutOfLine: matrices above eight times the median of their kind", () => {
  const reports = (kind: string, errors: (number | undefined)[]) =>
    errors.map((weightedError, i) => ({
      name: `model.layers.${i}.mlp.${kind}`,
      ...(weightedError !== undefined && { weightedError }),
    }));
  const down = reports("down_proj", [0.01, 0.02, 0.17, 0.01, 0.03]);
  const up = reports("up_proj", [0.05, 0.16, 0.05, 0.02]);
  assertEquals(noteOutOfLine([...down, ...up, ...reports("gate_proj", [undefined, undefined])]), [
    "model.layers.2.mlp.down_proj: weighted error 17.00 % is out of line, the median of its kind is 2.00 %; " +
    "--layers can leave it in 16 bits",
  ]);
  assertEquals(noteOutOfLine([]), []);
});
