// CPU references of the backward kernels, in f64. Tests hold them against finite differences of the functions whose
// gradients they are.
//
// A bound is the sum of the sizes of all terms times what each may be off by: 2^-24 for each rounding on its way.
import type { AttentionShape } from "../../../kernels/attention/key_value_cache.ts";
import type { BoundedProduct } from "../../../kernels/matrix/bounded_product.ts";

type Values = ArrayLike<number>;

/** Roundings of a square root, an exponential, a logarithm and a few products. */
const FEW = 64;

function boundedZeros(length: number): BoundedProduct {
  return { y: new Float64Array(length), bound: new Float64Array(length) };
}

/** Adds a term that may be off by so many roundings of its `size`. */
function add({ y, bound }: BoundedProduct, at: number, term: number, size: number, roundings: number): void {
  y[at] += term;
  bound[at] += size * roundings * 2 ** -24;
}

/** Gradients of RMSNorm: of its input [tokens, hidden] and of its weight [hidden]. */
export function rmsNormBackwardOnCpu(x: Values, weight: Values, yGradient: Values, epsilon: number) {
  const hidden = weight.length;
  const [xGradient, weightGradient] = [boundedZeros(x.length), boundedZeros(hidden)];
  for (let first = 0; first < x.length; first += hidden) {
    let [squares, products, sizes] = [0, 0, 0];
    for (let i = 0; i < hidden; i++) {
      const product = weight[i] * yGradient[first + i] * x[first + i];
      squares += x[first + i] ** 2;
      products += product;
      sizes += Math.abs(product);
    }
    const factor = 1 / Math.sqrt(squares / hidden + epsilon);
    for (let i = 0; i < hidden; i++) {
      const [value, gradient] = [x[first + i], yGradient[first + i]];
      const [own, pull] = [factor * weight[i] * gradient, (factor ** 3 * value) / hidden];
      add(xGradient, first + i, own - pull * products, Math.abs(own) + Math.abs(pull) * sizes, hidden + FEW);
      const term = factor * gradient * value;
      add(weightGradient, i, term, Math.abs(term), hidden + x.length / hidden + FEW);
    }
  }
  return { xGradient, weightGradient };
}

/** Gradients of silu(gate) * up in the layout of its input [tokens, gate and up]. */
export function siluBackwardOnCpu(x: Values, yGradient: Values, width: number): BoundedProduct {
  const gradient = boundedZeros(x.length);
  for (let at = 0; at < yGradient.length; at++) {
    const gateAt = Math.floor(at / width) * 2 * width + at % width;
    const [gate, up] = [x[gateAt], x[gateAt + width]];
    const sigmoid = 1 / (1 + Math.exp(-gate));
    const slope = sigmoid * (1 + gate * (1 - sigmoid));
    // An exponential is off by as much as its argument is large.
    const roundings = FEW + Math.abs(gate);
    const size = Math.abs(yGradient[at] * up) * sigmoid * (1 + Math.abs(gate));
    add(gradient, gateAt, yGradient[at] * up * slope, size, roundings);
    const term = yGradient[at] * gate * sigmoid;
    add(gradient, gateAt + width, term, Math.abs(term), roundings);
  }
  return gradient;
}

/** Divergence of softmax(logits) from softmax(wanted) of one token, and the gradient of the logits. */
export function divergenceOnCpu(wanted: Values, logits: Values) {
  const logsOf = (values: Values) => {
    const all = Float64Array.from(values);
    const largest = all.reduce((a, b) => Math.max(a, b));
    const logSum = largest + Math.log(all.reduce((sum, value) => sum + Math.exp(value - largest), 0));
    return all.map((value) => value - logSum);
  };
  const [logP, logQ] = [logsOf(wanted), logsOf(logits)];
  const [divergence, gradient] = [boundedZeros(1), boundedZeros(logits.length)];
  for (let i = 0; i < logits.length; i++) {
    const [p, q] = [Math.exp(logP[i]), Math.exp(logQ[i])];
    // Logarithms are off by their own size and by that of the logits that they are differences of.
    const roundings = FEW + logits.length + 4 * (Math.abs(logP[i]) + Math.abs(logQ[i]) + Math.abs(logits[i]));
    add(divergence, 0, p * (logP[i] - logQ[i]), p * (1 + Math.abs(logP[i] - logQ[i])), roundings);
    add(gradient, i, q - p, q + p, roundings);
  }
  return { divergence, gradient };
}

/** What attention of one window is made of, all [tokens, its heads, headSize]. */
export interface AttentionOperands {
  readonly q: Values;
  readonly k: Values;
  readonly v: Values;
}

/** Causal attention of one window: out [tokens, heads, headSize], with the gradients of q, k and v for one of out. */
export function attentionBackwardOnCpu(
  { heads, keyValueHeads, headSize, slidingWindow = Infinity }: AttentionShape,
  { q, k, v }: AttentionOperands,
  outGradient: Values,
) {
  const tokens = q.length / (heads * headSize);
  const [out, qGradient] = [new Float64Array(q.length), boundedZeros(q.length)];
  const [kGradient, vGradient] = [boundedZeros(k.length), boundedZeros(v.length)];
  for (let row = 0; row < tokens * heads; row++) {
    const [query, mine] = [Math.floor(row / heads), row * headSize];
    const group = Math.floor((row % heads) / (heads / keyValueHeads));
    const first = Math.max(0, query - slidingWindow + 1);
    const seen = Array.from({ length: query + 1 - first }, (_, i) => ((first + i) * keyValueHeads + group) * headSize);
    const scores = seen.map((at) => dotOf(q, mine, k, at, headSize));
    const exps = scores.map(({ sum }) => Math.exp(sum / Math.sqrt(headSize)));
    const total = exps.reduce((a, b) => a + b);
    const products = seen.map((at) => dotOf(outGradient, mine, v, at, headSize));
    const mean = exps.reduce((sum, exp, i) => sum + (exp / total) * products[i].sum, 0);
    const meanSize = exps.reduce((sum, exp, i) => sum + (exp / total) * products[i].size, 0);
    // A share is off by as much as scores are, which are off by as much as they are long and large.
    const largest = scores.reduce((most, { size }) => Math.max(most, size), 0) / Math.sqrt(headSize);
    const roundings = 2 * (headSize * (1 + largest) + 2 * tokens + FEW);
    for (const [i, at] of seen.entries()) {
      const share = exps[i] / total;
      const score = (share * (products[i].sum - mean)) / Math.sqrt(headSize);
      const size = (share * (products[i].size + meanSize)) / Math.sqrt(headSize);
      for (let e = 0; e < headSize; e++) {
        out[mine + e] += share * v[at + e];
        add(qGradient, mine + e, score * k[at + e], size * Math.abs(k[at + e]), roundings);
        add(kGradient, at + e, score * q[mine + e], size * Math.abs(q[mine + e]), roundings);
        const term = share * outGradient[mine + e];
        add(vGradient, at + e, term, Math.abs(term), roundings);
      }
    }
  }
  return { out, qGradient, kGradient, vGradient };
}

function dotOf(a: Values, aFirst: number, b: Values, bFirst: number, length: number): { sum: number; size: number } {
  let [sum, size] = [0, 0];
  for (let i = 0; i < length; i++) {
    sum += a[aFirst + i] * b[bFirst + i];
    size += Math.abs(a[aFirst + i] * b[bFirst + i]);
  }
  return { sum, size };
}

/**
 * The gradient of a head before its norm and its rotation.
 *
 * @param x f32 [headSize]: the head before both
 * @param turns cosine and sine of each pair
 */
export function ropeBackwardOnCpu(
  x: Values,
  yGradient: Values,
  turns: readonly (readonly [cosine: number, sine: number])[],
  norm?: { readonly weight: Values; readonly epsilon: number },
): BoundedProduct {
  const half = turns.length;
  const turned = boundedZeros(2 * half);
  for (const [i, [cosine, sine]] of turns.entries()) {
    const [low, high] = [yGradient[i], yGradient[i + half]];
    add(turned, i, low * cosine + high * sine, Math.abs(low) + Math.abs(high), FEW);
    add(turned, i + half, high * cosine - low * sine, Math.abs(low) + Math.abs(high), FEW);
  }
  if (!norm) return turned;
  const { xGradient: { y, bound } } = rmsNormBackwardOnCpu(x, norm.weight, turned.y, norm.epsilon);
  // What the rotation is off by goes through the norm, which makes nothing longer than its factor does.
  const factor = 1 / Math.sqrt(Array.from(x).reduce((sum, value) => sum + value ** 2, 0) / x.length + norm.epsilon);
  const heaviest = Array.from(norm.weight).reduce((most, weight) => Math.max(most, Math.abs(weight)), 0);
  const off = factor * heaviest * Math.hypot(...turned.bound);
  return { y, bound: bound.map((own) => own + off) };
}

/** Sum of dw * w over the 16 rows and 16 channels of each tile: [tiles, channels / 16]. */
export function tileGradientOnCpu(weights: Values, weightGradient: Values, channels: number): BoundedProduct {
  const groups = channels / 16;
  const gradient = boundedZeros(Math.ceil(weights.length / channels / 16) * groups);
  for (let at = 0; at < weights.length; at++) {
    const [row, channel] = [Math.floor(at / channels), at % channels];
    const term = weights[at] * weightGradient[at];
    add(gradient, Math.floor(row / 16) * groups + Math.floor(channel / 16), term, Math.abs(term), 256);
  }
  return gradient;
}
