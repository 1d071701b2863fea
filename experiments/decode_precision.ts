// A question of this suite, no claim of the paper: what the options cost that decode less exactly and faster.
import { openGpu } from "../kernels/gpu/gpu.ts";
import { uploadWeights } from "../model/engine/engine_weights.ts";
import { createSession, type Session } from "../model/engine/session.ts";
import { type EvaluationPlan, prepareEvaluation } from "../model/evaluate/evaluation.ts";
import { clusteredMean, exponentialOf, mean, pairedDifference, scaled } from "../model/host/statistics.ts";
import { loadText } from "../model/text/text.ts";
import type { Experiment } from "./experiment.ts";
import { withRealWeights } from "./packed/real_weights.ts";
import { PRECISIONS } from "./packed/precisions.ts";
import { formatEstimate, statusOf } from "./results/judge.ts";
import { type Column, estimateCells, estimateColumns, estimateOf, type Row, type Verdict } from "./results/result.ts";

/** What the options are compared with. */
const DEFAULT = "default";

/** Loss in nats a token that an option may cost: one per cent of perplexity. */
const MOST_LOSS = 0.01;

const ON_GPU: Omit<EvaluationPlan, "seed"> = { windows: 32, windowTokens: 257, choices: 0 };
const ON_CPU: typeof ON_GPU = { windows: 16, windowTokens: 65, choices: 0 };

export const decodePrecision: Experiment = {
  id: "decode_precision",
  title: "What decoding less exactly costs",
  claim: `Ours, no claim of the paper: options that decode less exactly cost less than ${MOST_LOSS} nats a token.`,
  differs: "The paper doesn't say how exactly activations are.",
  needsGpu: false,
  needsModel: true,
  isOurs: true,
  takesWholeRun: true,
  async run(context) {
    using gpu = await openGpu();
    const { textName, seed } = context;
    const { checkpoint: { config, tokenizer } } = await context.opened();
    const plan = { ...(gpu.isSoftware ? ON_CPU : ON_GPU), seed };
    const { windows: { windows, text } } = prepareEvaluation(await loadText(textName), tokenizer, config, plan);
    return await withRealWeights(context, !gpu.isSoftware, async ({ packed, sources }) => {
      using weights = await uploadWeights(gpu, sources.twobit);
      const decoded = new Map<string, DecodedWindow[]>();
      const all = Object.entries({ [DEFAULT]: {}, ...PRECISIONS });
      for (const [i, [name, precision]] of all.entries()) {
        using session = await createSession(gpu, weights, windows[0].length, 1, precision);
        const own: DecodedWindow[] = [];
        for (const window of windows) {
          context.progress((i + own.length / windows.length) / all.length, name);
          own.push(await decodeWindow(session, window));
        }
        decoded.set(name, own);
      }
      const rows = Array.from(decoded, ([name, own]) => describe(name, own, decoded.get(DEFAULT)!));
      return {
        settings: {
          "packed": packed,
          "text": `${text}: ${windows.length} windows of ${windows[0].length} tokens`,
          "decoded": "each token of a window by a step of its own, after those before it, from the first on",
          "standard errors": "from the spread of the windows, of differences from that of the paired ones",
        },
        columns: COLUMNS,
        rows,
        samples: Object.fromEntries(
          Array.from(decoded, ([name, own]) => [`${name}: nats a token, by window`, own.map(({ loss }) => loss)]),
        ),
        verdict: judgeDecodePrecision(rows),
      };
    });
  },
};

/** What the decode path makes of a window. */
interface DecodedWindow {
  /** Mean negative log-likelihood of what follows, in nats a token. */
  readonly loss: number;
  /** Share of tokens predicted as the most likely one. */
  readonly top1: number;
  /** The most likely token after each. */
  readonly best: Uint32Array;
}

async function decodeWindow(session: Session, tokens: Uint32Array): Promise<DecodedWindow> {
  session.truncate(0, 0);
  const losses: number[] = [];
  const best: number[] = [];
  for (const [i, target] of tokens.subarray(1).entries()) {
    session.setNext(0, tokens[i]);
    const [[chosen]] = await session.decode([0], 1);
    best.push(chosen);
    losses.push(-(await session.logProbabilities(Uint32Array.of(target)))[0]);
  }
  const hits = best.map((token, i) => Number(token === tokens[i + 1]));
  return { loss: mean(losses), top1: mean(hits), best: Uint32Array.from(best) };
}

const COLUMNS: readonly Column[] = [
  { key: "precision", label: "decoded with", unit: "" },
  ...estimateColumns({ key: "perplexity", label: "perplexity", unit: "" }),
  ...estimateColumns(
    { key: "difference", label: "loss above the default's", unit: "nats a token" },
    { label: "± (paired)", unit: "nats" },
  ),
  ...estimateColumns({ key: "top1", label: "next token right", unit: "%" }),
  ...estimateColumns({ key: "agreement", label: "most likely token as by default", unit: "%" }),
];

function describe(precision: string, own: readonly DecodedWindow[], reference: readonly DecodedWindow[]): Row {
  const losses = own.map(({ loss }) => loss);
  const agreement = own.map(({ best }, i) => Array.from(best, (token, t) => Number(token === reference[i].best[t])));
  return {
    precision,
    ...estimateCells("perplexity", exponentialOf(clusteredMean(losses.map((each) => [each])))),
    ...estimateCells("difference", pairedDifference(losses, reference.map(({ loss }) => loss))),
    ...estimateCells("top1", scaled(clusteredMean(own.map(({ top1 }) => [top1])), 100)),
    ...estimateCells("agreement", scaled(clusteredMean(agreement), 100)),
  };
}

/** The option that costs the most decides. */
export function judgeDecodePrecision(rows: readonly Row[]): Verdict {
  const options = rows.filter(({ precision }) => precision !== DEFAULT)
    .map((row) => ({ name: row.precision, ...estimateOf(row, "difference") }));
  const worst = options.reduce((a, b) => a.value >= b.value ? a : b);
  return {
    paper: "nothing",
    measured: `${formatEstimate(worst, 5)} (${worst.name})`,
    unit: "nats a token that an option costs, at most",
    status: statusOf(MOST_LOSS - worst.value, worst.standardError),
    note: `No claim of the paper. Reproduced means: below ${MOST_LOSS}, which is one per cent of perplexity, by more ` +
      "than the standard error; partly, within it.",
  };
}
