// Claim `accuracy`: plain 2-bit quantization loses much accuracy, the paper's mixed bits little.
import { Q2K_CHANNELS } from "../quant/baselines/q2k.ts";
import type { Evaluation } from "../model/evaluate/evaluation.ts";
import { isPacked } from "../model/files/packed_checkpoint.ts";
import { scaled } from "../model/host/statistics.ts";
import { LINEAR_KINDS, linearShape, linearWeights } from "../model/llama/layer.ts";
import { measuresInput } from "../quant/quantizer.ts";
import { FEEDBACK, isImproved } from "../quant/recipe.ts";
import {
  accuracyGain,
  compareMethod,
  COMPARISON_COLUMNS,
  comparisonRow,
  comparisonSettings,
  taskColumns,
  taskGain,
  windowSamples,
} from "./comparison.ts";
import type { Experiment } from "./experiment.ts";
import * as methods from "./methods.ts";
import { GPTQ_FEEDBACK } from "./methods.ts";
import type { Inputs } from "./models/model_place.ts";
import { describeTypes } from "./provenance.ts";
import {
  describeNear,
  formatEstimate,
  statusOf,
  statusOfAll,
  statusOfAtLeast,
  statusOfParts,
} from "./results/judge.ts";
import { PLAIN_LOSS } from "./results/paper.ts";
import type { Row, Verdict } from "./results/result.ts";

/** Methods of a quick run: what the verdict compares, and rounding to nearest, which takes a second. */
const QUICK: readonly string[] = ["rtn2_g16", "gptq2_g16", "twobit"];

export const accuracy: Experiment = {
  id: "accuracy",
  title: "Accuracy of 2-bit methods",
  claim: "Plain 2-bit quantization loses more than 3 % accuracy; mixed 2/4/16 bits at 2.85 bits lose little.",
  differs:
    "The paper's points are of Llama2-7b on tasks that it doesn't list; ours are of the model and text measured.",
  needsGpu: false,
  needsModel: true,
  async run(context) {
    const baseline = await context.baseline();
    const { checkpoint } = await context.opened();
    const fitsQ2k = LINEAR_KINDS.every((kind) => linearShape(checkpoint.config, kind)[1] % Q2K_CHANNELS === 0);
    const { isRealGpu } = await context.place();
    const hasMore = !isPacked(checkpoint) && isImproved(isRealGpu, linearWeights(checkpoint.config), "corrected");
    const all: (readonly [name: string, method: methods.Method, inputs?: Inputs])[] = [
      ["rtn2_g128", methods.rtn(2, 128)],
      ["rtn2_g32", methods.rtn(2, 32)],
      ["rtn2_g16", methods.rtn(2, 16)],
      ["rtn4_g16", methods.rtn(4, 16)],
      ["gptq2_g128", methods.gptq(2, 128)],
      ["gptq2_g16", methods.gptq(2, 16)],
      ["greenbit_g32", methods.greenbit(32)],
      ["greenbit_g16", methods.greenbit(16)],
      ...(fitsQ2k ? [["q2_k", methods.q2k], ["q2_k_imatrix", methods.q2kImatrix]] as const : []),
      ["paper_layout", methods.paperLayout],
      ["paper_layout_corrected", methods.paperLayoutCorrected],
      ["twobit_search", methods.twobitSearch, "random"],
      ["twobit_feedback", methods.twobitFeedback],
      ["twobit", methods.twobit],
      ...(hasMore ? [[DEFAULT_FILE, methods.twobit, "default"]] as const : []),
    ];
    const chosen = context.quick ? all.filter(([name]) => QUICK.includes(name)) : all;
    const rows = [comparisonRow("fp16", 16, baseline.reference, baseline.reference)];
    const evaluations = new Map([["fp16", baseline.reference]]);
    for (const [i, [name, method, as]] of chosen.entries()) {
      const onProgress = (share: number, step: string) => context.progress((i + share) / chosen.length, step);
      const quantizer = method("q_proj");
      const inputs = as ??
        (quantizer.correctTarget ? "corrected" : measuresInput(quantizer) ? "unquantized" : "none");
      const found = await compareMethod(context, { name, method, inputs, onProgress });
      rows.push(found.row);
      evaluations.set(name, found.evaluation);
    }
    return {
      settings: {
        ...comparisonSettings(baseline),
        ...(!isPacked(checkpoint) && { "the model's weights": describeTypes(checkpoint) }),
        "Hessians":
          "of the unquantized model, the same for all methods whose targets aren't corrected; measured with the " +
          "earlier layers already quantized where they are (on this model that makes no difference without correction)",
        "gptq, greenbit, paper_layout":
          `error feedback with damping ${GPTQ_FEEDBACK.damping}, act-order, static groups; scales ` +
          "by min/max (gptq) or searched over clip factors, weighted by the Hessian's diagonal (the others)",
        "q2_k": fitsQ2k
          ? "llama.cpp's layout and search, without and with the Hessian's diagonal as importance; no error feedback, and " +
            "all matrices in Q2_K, where llama.cpp's own mix keeps some in more bits"
          : `left out: its rows must be multiples of ${Q2K_CHANNELS} channels`,
        "paper_layout_corrected": "and targets corrected as in twobit: the fair comparison of layouts",
        "twobit_search": "quantize --method search: scales searched, errors and picks weighed by what random tokens " +
          "put through the channels; no text",
        "twobit_feedback": `and error feedback (damping ${FEEDBACK.damping}), scales searched at their turn`,
        "twobit": "and targets corrected for what earlier layers' quantization changed",
        ...(hasMore && {
          [DEFAULT_FILE]:
            "the file that quantize writes by default for this model and text: densities by stage, and scales " +
            "and norms tuned by gradients, which no other row has",
        }),
        "refined groups": `1 in 8 in all ${hasMore ? "other " : ""}rows of twobit`,
      },
      columns: [...COMPARISON_COLUMNS, ...taskColumns(baseline.reference.tasks)],
      rows,
      samples: windowSamples(evaluations),
      verdict: judgeAccuracy(evaluations, rows),
    };
  },
};

/** Name of what `quantize` does by default where that is more than the method: on a GPU. */
const DEFAULT_FILE = "twobit_default";

/** Plain 2-bit methods that the paper names. */
const PLAIN: readonly string[] = ["gptq2_g128", "gptq2_g16", "greenbit_g32", "greenbit_g16"];

const NEXT_TOKEN = "next-token accuracy on this model's evaluation text, not on Llama2-7b's tasks";

/** What the best plain 2-bit method loses, and what ours does. */
export function judgeAccuracy(evaluations: ReadonlyMap<string, Evaluation>, rows: readonly Row[]): Verdict {
  const reference = evaluations.get("fp16")!;
  const tasks = reference.tasks.map(({ name }) => name).join(", ");
  const lossOf = (name: string) => (tasks ? taskGain : accuracyGain)(reference, evaluations.get(name)!);
  const plain = PLAIN.filter((name) => evaluations.has(name)).map((name) => ({ name, loss: lossOf(name) }));
  const best = plain.reduce((a, b) => a.loss.value <= b.loss.value ? a : b);
  const ours = lossOf("twobit");
  const more = evaluations.has(DEFAULT_FILE)
    ? ` With densities by stage and tuned scales, as quantize does by default: ${formatEstimate(lossOf(DEFAULT_FILE))}.`
    : "";
  const half = scaled(best.loss, 0.5);
  // As if the two were measured apart, which is the larger error.
  const standardError = Math.hypot(half.standardError, ours.standardError);
  const plainLoses = statusOfAtLeast(best.loss, PLAIN_LOSS);
  const oursKeeps = statusOfAll([
    statusOf(half.value - ours.value, standardError),
    statusOf(PLAIN_LOSS - ours.value, ours.standardError),
  ]);
  const ratio = Number(rows.find(({ method }) => method === "twobit")?.perplexity_ratio);
  return {
    paper: `> ${PLAIN_LOSS} (plain 2-bit), little (theirs)`,
    measured: `${formatEstimate(best.loss)} (${best.name}), ${formatEstimate(ours)} (twobit)`,
    unit: tasks ? "points of task accuracy lost" : "points of next-token accuracy lost",
    status: statusOfParts([plainLoses, oursKeeps]),
    note:
      `Reproduced means: the best of ${PLAIN.join(", ")} loses more than ${PLAIN_LOSS} points, and twobit less than ` +
      `half of that and less than ${PLAIN_LOSS}, each by more than its error; partly, that one of the two does or ` +
      `that one is within its error.${describeNear(`The loss of ${best.name}`, best.loss, PLAIN_LOSS)} Measured as ` +
      `${tasks ? `mean accuracy (acc) on ${tasks}` : NEXT_TOKEN}. twobit's perplexity is ${
        ratio.toFixed(3)
      } x unquantized. By a secondary source (ArXivQA) the paper's loss falls from 8.7 to 2.9 points, a third.${more}`,
  };
}
