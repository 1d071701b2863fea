// Sequences side by side through all layers of a model on the device: products of thousands of tokens, where short
// texts one by one leave most of it idle.
import { allOrNone } from "../../kernels/gpu/buffer_scope.ts";
import type { Gpu } from "../../kernels/gpu/gpu.ts";
import { createMultiplyMany } from "../../kernels/product/linear.ts";
import { createTokenRange, setTokenRange } from "../../kernels/tokens/token_range.ts";
import type { EngineWeights } from "../engine/engine_weights.ts";
import { joinedPass, mostJoined } from "../engine/joined_attention.ts";
import { createPassBuffers, linearsOf } from "../engine/layer_operations.ts";
import { checkCapacity, createCaches, roundCapacity } from "../engine/sequence_cache.ts";
import { letOthersRun } from "../host/event_loop.ts";
import type { ModelConfig } from "../llama/config.ts";
import { rotationTable } from "../llama/rope.ts";

/** How many sequences go side by side. */
export interface JoinedShape {
  readonly sequences: number;
  /** Tokens of each that go at once: all, but where one sequence alone is more than goes at once. */
  readonly tokens: number;
  /** Tokens of the longest one. */
  readonly longest: number;
}

/** Bytes of a pass's widest buffer at most: room for a window of 2048 tokens of a 7B's model as a whole. */
const PASS_BYTES = 2 ** 28;

/**
 * The shape of passes for so many sequences of at most so many tokens.
 *
 * @param bindingBytes the most that a device binds
 * @param parts passes that take what one would where there is room
 */
export function joinedShape(
  config: ModelConfig,
  count: number,
  longest: number,
  bindingBytes: number,
  parts = 1,
): JoinedShape {
  const most = 4 * Math.ceil(mostJoined(config, Math.min(PASS_BYTES, bindingBytes)) / 4 / parts);
  const sequences = Math.max(1, Math.min(count, Math.floor(most / longest)));
  return { sequences, tokens: Math.min(most, longest), longest };
}

/** Takes sequences through a model. Dispose it to free its buffers. */
export interface JoinedPass extends Disposable {
  readonly shape: JoinedShape;
  /**
   * Takes sequences from their start, each padded to the same length.
   *
   * @param onPart gets the residual stream f32 [sequences, tokens, hidden], before the final norm, and the index of its first
   * token in each sequence: once, but for a sequence that is longer than a pass
   */
  takeIn(sequences: readonly Uint32Array[], onPart: (hidden: GPUBuffer, first: number) => Promise<void>): Promise<void>;
}

/**
 * Makes the buffers and dispatches of passes of one shape.
 *
 * @throws {RangeError} when the model's context is shorter, or the device can't bind so large a cache
 * @throws {OutOfMemoryError} when the device has no room
 */
export function createJoinedPass(gpu: Gpu, weights: EngineWeights, shape: JoinedShape): Promise<JoinedPass> {
  return allOrNone(gpu, async (scope) => {
    const { config } = weights;
    const { sequences, tokens, longest } = shape;
    checkCapacity(gpu, config, longest, sequences);
    const total = sequences * tokens;
    const range = await createTokenRange(gpu, total, sequences);
    scope.own(range.buffer);
    const buffers = await createPassBuffers(scope, config, total);
    const capacity = roundCapacity(longest);
    // Keys of the layers before are needed again only where a sequence takes several passes.
    const cached = longest > tokens ? config : { ...config, layers: 1 };
    const caches = await createCaches(gpu, scope, cached, capacity, sequences);
    const rotations = await scope.upload("rotations", rotationTable(config.rope, config.headSize, capacity, longest));
    const multiply = await createMultiplyMany(gpu, scope, linearsOf(weights.layers), total);
    const dispatches = await joinedPass(gpu, weights, range, buffers, { caches, rotations }, multiply);
    return {
      shape,
      async takeIn(taken, onPart) {
        const end = sequences === 1 ? taken[0].length : tokens;
        for (let first = 0; first < end; first += tokens) {
          await letOthersRun();
          const padded = new Uint32Array(total);
          for (const [i, text] of taken.entries()) padded.set(text.subarray(first, first + tokens), i * tokens);
          setTokenRange(gpu, range, sequences === 1 ? Math.min(tokens, end - first) : taken.length * tokens, first);
          gpu.write(buffers.tokens, padded);
          gpu.submit(dispatches);
          await onPart(buffers.hidden, first);
        }
      },
      [Symbol.dispose]: () => scope[Symbol.dispose](),
    };
  });
}
