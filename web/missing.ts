/**
 * What a browser lacks to run the engine.
 *
 * @module
 */

/** Says what is missing and how to get it; undefined where all is there. */
export async function describeMissing(): Promise<string | undefined> {
  if (!("gpu" in navigator) || navigator.gpu === undefined) {
    return globalThis.isSecureContext
      ? "This browser has no WebGPU, or it is switched off. Chrome and Edge have it from version 135 on; on Linux it may " +
        "have to be switched on with chrome://flags/#enable-unsafe-webgpu."
      : "Browsers give WebGPU only to pages from this machine or over HTTPS: open this page as http://localhost.";
  }
  const absent = [
    ...("Float16Array" in globalThis ? [] : ["Float16Array"]),
    ...("dispose" in Symbol ? [] : ["Symbol.dispose"]),
  ];
  if (absent.length > 0) {
    return `This browser is too old: it lacks ${absent.join(" and ")}, which Chrome and Edge have from version 135 on.`;
  }
  if (await navigator.gpu.requestAdapter({ powerPreference: "high-performance" })) return undefined;
  return "This browser has WebGPU but found no GPU that it can use: the driver is missing, too old or blocked. " +
    "chrome://gpu says which; chrome://flags/#enable-unsafe-webgpu lifts the block.";
}
