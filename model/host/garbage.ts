// Collecting garbage before V8 does.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Bytes of arrays that may gather in all workers together; V8 would let it be 64 MB in each of many. */
const GATHERED_BYTES = 128 * 2 ** 20;

/** Makes V8's function that collects garbage, all of it or what is young. */
export function openCollector(): (how?: { readonly type: "minor" }) => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc");
}

/** Makes a function that collects young garbage of a worker where many bytes of arrays came since it last did. */
export function createCollector(): () => void {
  const collect = openCollector();
  const gatheredBytes = GATHERED_BYTES / navigator.hardwareConcurrency;
  let leftBytes = 0;
  return () => {
    if (Deno.memoryUsage().external < leftBytes + gatheredBytes) return;
    collect({ type: "minor" });
    leftBytes = Deno.memoryUsage().external;
  };
}
