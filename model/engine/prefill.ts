// Taking many tokens through all layers at once: prompts, and text to score.
import { allOrNone } from "../../kernels/gpu/buffer_scope.ts";
import type { Dispatch, Gpu } from "../../kernels/gpu/gpu.ts";
import { createMultiplyFew, createMultiplyMany } from "../../kernels/product/linear.ts";
import { createTokenRange, setTokenRange, type TokenRange } from "../../kernels/tokens/token_range.ts";
import type { StepBuffers } from "./decode_step.ts";
import type { EngineWeights } from "./engine_weights.ts";
import { letOthersRun } from "../host/event_loop.ts";
import { joinedPass } from "./joined_attention.ts";
import { createPassBuffers, linearsOf } from "./layer_operations.ts";

/** Most tokens of one pass; longer texts take several. */
export const PASS_TOKENS = 512;

/** Tokens that passes are made for: a pass with fewer leaves workgroups idle. */
const PASS_SIZES = [16, 128, PASS_TOKENS];

/** Most tokens of a pass that is multiplied as the tokens of a batch are. */
const FEW_TOKENS = 16;

/** Takes tokens into the caches of sequences. Dispose it to free its buffers. */
export interface Prefill extends Disposable {
  /** f32 [{@linkcode PASS_TOKENS}, hidden]: the residual stream of the last pass, before the final norm. */
  readonly hidden: GPUBuffer;
  /**
   * Takes tokens into a sequence's cache, pass by pass, and gives those of a pass when it is submitted.
   *
   * @param position of the first
   * @param sequence index of the sequence in the cache
   * @param signal ends the work between two passes
   * @throws the signal's reason
   */
  takeIn(
    tokens: Uint32Array<ArrayBuffer>,
    position: number,
    sequence: number,
    signal?: AbortSignal,
  ): AsyncGenerator<Uint32Array<ArrayBuffer>, void>;
}

/** Where keys and values of sequences go, and the angles of their positions. */
type SequenceBuffers = Pick<StepBuffers, "caches" | "rotations">;

/** Makes the buffers; dispatches are made when a size of pass is first used. */
export function createPrefill(gpu: Gpu, weights: EngineWeights, sequences: SequenceBuffers): Promise<Prefill> {
  return allOrNone(gpu, async (scope) => {
    const buffers = await createPassBuffers(scope, weights.config, PASS_TOKENS);
    const passes = new Map<number, { range: TokenRange; dispatches: readonly Dispatch[] }>();
    const openPass = async (size: number) => {
      const range = await createTokenRange(gpu, size);
      scope.own(range.buffer);
      const create = size <= FEW_TOKENS ? createMultiplyFew : createMultiplyMany;
      const multiply = await create(gpu, scope, linearsOf(weights.layers), size);
      const pass = { range, dispatches: await joinedPass(gpu, weights, range, buffers, sequences, multiply) };
      passes.set(size, pass);
      return pass;
    };
    return {
      hidden: buffers.hidden,
      async *takeIn(tokens, position, sequence, signal) {
        let before = Promise.resolve();
        for (let first = 0; first < tokens.length; first += PASS_TOKENS) {
          await letOthersRun();
          signal?.throwIfAborted();
          const part = tokens.slice(first, first + PASS_TOKENS);
          const size = PASS_SIZES.find((most) => part.length <= most) ?? PASS_TOKENS;
          const { range, dispatches } = passes.get(size) ?? await openPass(size);
          setTokenRange(gpu, range, part.length, position + first, sequence);
          gpu.write(buffers.tokens, part);
          gpu.submit(dispatches);
          // The device has this pass while the host waits for the one before; where maps block, none is left by then.
          await before;
          if (first + PASS_TOKENS < tokens.length) {
            before = gpu.wait();
            before.catch(() => {});
          }
          yield part;
        }
      },
      [Symbol.dispose]: () => scope[Symbol.dispose](),
    };
  });
}
