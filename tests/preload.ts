// Runs before the test files, as cli/main.ts does before a command: Vulkan's loader complains at every device
// where XDG_RUNTIME_DIR is unset, though it doesn't need it. With TWOBIT_WEBGPU=dawn tests run on Dawn's WebGPU.
import { useWebGpu } from "../cli/command.ts";

if (!Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
await useWebGpu({ webgpu: Deno.env.get("TWOBIT_WEBGPU") });
