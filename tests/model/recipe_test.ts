import { linearShape } from "../../model/llama.ts";
import { BUDGET_BITS, modelBits, planDensities } from "../../model/recipe.ts";
import { MODEL_SHAPES } from "../../model/shapes.ts";
import { assert, assertEquals } from "../assert.ts";

const shapeOf = (name: string) => MODEL_SHAPES.find((shape) => shape.name === name)!;

Deno.test("linearShape: Llama-3-8B, as on its model card", () => {
  const shape = shapeOf("llama-3-8b");
  assertEquals(linearShape(shape, "q_proj"), [4096, 4096]);
  assertEquals(linearShape(shape, "k_proj"), [1024, 4096]);
  assertEquals(linearShape(shape, "up_proj"), [14336, 4096]);
  assertEquals(linearShape(shape, "down_proj"), [4096, 14336]);
});

Deno.test("planDensities: no published shape exceeds the budget, and q pays for v and down", () => {
  for (const shape of MODEL_SHAPES) {
    const densities = planDensities(shape);
    assert(modelBits(shape, densities) <= BUDGET_BITS, shape.name);
    assertEquals([densities.q_proj, densities.v_proj !== 8, densities.down_proj], ["none", true, 4], shape.name);
  }
});

Deno.test("planDensities: Llama-2-7B by hand", () => {
  // A layer has 4 x 4096² and 3 x 4096 x 11008 weights: q, k, v, o 8.290 % each, gate, up, down 22.279 % each.
  // From 2.8125: q none -0.25, o, gate, up 1 in 16 -0.125, v 1 in 2 +0.75, down 1 in 4 +0.25, each times its share:
  // 2.8125 - 0.02073 - 0.01036 - 0.05570 + 0.06218 + 0.05570 = 2.84359. k 1 in 4 would add 0.02073, v all 0.08290.
  const shape = shapeOf("llama-2-7b");
  const densities = planDensities(shape);
  assertEquals(densities, {
    q_proj: "none",
    k_proj: 8,
    v_proj: 2,
    o_proj: 16,
    gate_proj: 16,
    up_proj: 16,
    down_proj: 4,
  });
  assert(Math.abs(modelBits(shape, densities) - 2.84359) < 1e-5);
});

Deno.test("planDensities: steps that the budget doesn't allow are passed over", () => {
  const shape = shapeOf("llama-2-7b");
  const saving = planDensities(shape, 2.72573); // what the savings leave
  assertEquals([saving.v_proj, saving.down_proj, saving.k_proj], [8, 8, 8]);
});

Deno.test("planDensities: where padding alone exceeds the budget, the plan still frees what it can", () => {
  // 576 channels are padded to 640, 1536 need none: even without refined groups 2.5625 x 640 / 576 = 2.847 in most matrices.
  const shape = { hidden: 576, intermediate: 1536, heads: 9, keyValueHeads: 3, headSize: 64 };
  const densities = planDensities(shape);
  assertEquals([densities.q_proj, densities.o_proj, densities.up_proj], ["none", 16, 16]);
  assert(modelBits(shape, densities) < modelBits(shape, { ...densities, up_proj: 8 }));
});
