// What a browser lacks to run the engine.

/**
 * Says what is missing and how to get it; undefined where all is there. The engine needs no feature and no limit beyond
 * those that every WebGPU has; a browser too old for the script itself is left with what the page says at first.
 */
export async function describeMissing(): Promise<string | undefined> {
  if (!("gpu" in navigator) || navigator.gpu === undefined) {
    return globalThis.isSecureContext
      ? "This browser has no WebGPU, or it is switched off. Chrome and Edge have it from version 135 on; on Linux it may " +
        "have to be switched on with chrome://flags/#enable-unsafe-webgpu."
      : "Browsers give WebGPU only to pages from this machine or over HTTPS: open this page as http://localhost.";
  }
  if (await navigator.gpu.requestAdapter({ powerPreference: "high-performance" })) return undefined;
  return "This browser has WebGPU but found no GPU that it can use: the driver is missing, too old or blocked. " +
    "chrome://gpu says which; chrome://flags/#enable-unsafe-webgpu lifts the block.";
}
