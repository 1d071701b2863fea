// Shapes of published models, from the config.json of each on the Hugging Face hub (names as there).
import type { ModelConfig } from "./config.ts";

/** The sizes of a model that its memory and speed follow from. */
export interface ModelShape extends
  Pick<
    ModelConfig,
    "vocabulary" | "hidden" | "intermediate" | "layers" | "heads" | "keyValueHeads" | "headSize" | "tiedHead"
  > {
  readonly name: string;
  /** Where the sizes are from. */
  readonly source: string;
}

type Sizes = readonly [
  hidden: number,
  intermediate: number,
  layers: number,
  heads: number,
  keyValueHeads: number,
  vocabulary: number,
];

function shape(name: string, source: string, sizes: Sizes): ModelShape {
  const [hidden, intermediate, layers, heads, keyValueHeads, vocabulary] = sizes;
  const headSize = hidden / heads;
  return { name, source, hidden, intermediate, layers, heads, keyValueHeads, headSize, vocabulary, tiedHead: false };
}

/** Models that tables are made for. */
export const MODEL_SHAPES: readonly ModelShape[] = [
  shape("llama-1-7b", "huggyllama/llama-7b", [4096, 11008, 32, 32, 32, 32000]),
  shape("llama-1-13b", "huggyllama/llama-13b", [5120, 13824, 40, 40, 40, 32000]),
  shape("llama-1-30b", "huggyllama/llama-30b", [6656, 17920, 60, 52, 52, 32000]),
  shape("llama-1-65b", "huggyllama/llama-65b", [8192, 22016, 80, 64, 64, 32000]),
  shape("llama-2-7b", "meta-llama/Llama-2-7b-hf", [4096, 11008, 32, 32, 32, 32000]),
  shape("llama-2-13b", "meta-llama/Llama-2-13b-hf", [5120, 13824, 40, 40, 40, 32000]),
  shape("llama-2-70b", "meta-llama/Llama-2-70b-hf", [8192, 28672, 80, 64, 8, 32000]),
  shape("llama-3-8b", "meta-llama/Meta-Llama-3-8B", [4096, 14336, 32, 32, 8, 128256]),
  shape("llama-3-70b", "meta-llama/Meta-Llama-3-70B", [8192, 28672, 80, 64, 8, 128256]),
  shape("mistral-7b", "mistralai/Mistral-7B-v0.1", [4096, 14336, 32, 32, 8, 32000]),
  shape("qwen2-7b", "Qwen/Qwen2-7B", [3584, 18944, 28, 28, 4, 152064]),
  shape("qwen2-72b", "Qwen/Qwen2-72B", [8192, 29568, 80, 64, 8, 152064]),
  shape("chatglm3-6b", "THUDM/chatglm3-6b", [4096, 13696, 28, 32, 2, 65024]),
  shape("glm-4-9b", "THUDM/glm-4-9b-hf", [4096, 13696, 40, 32, 2, 151552]),
  shape("phi-3-mini", "microsoft/Phi-3-mini-4k-instruct", [3072, 8192, 32, 32, 32, 32064]),
  { ...shape("smollm2-135m", "HuggingFaceTB/SmolLM2-135M", [576, 1536, 30, 9, 3, 49152]), tiedHead: true },
  { ...shape("smollm2-360m", "HuggingFaceTB/SmolLM2-360M", [960, 2560, 32, 15, 5, 49152]), tiedHead: true },
];
