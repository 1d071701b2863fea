/**
 * Runs before the test files, as cli/main.ts does before a command: Vulkan's loader complains at every device
 * where XDG_RUNTIME_DIR is unset, though it doesn't need it.
 *
 * @module
 */
if (!Deno.env.get("XDG_RUNTIME_DIR")) Deno.env.set("XDG_RUNTIME_DIR", "/tmp");
