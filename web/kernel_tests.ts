/// <reference lib="dom" />
// The kernel tests, run in the page: each import registers the tests of a file.
import "../tests/kernels/attention/decode_attention_test.ts";
import "../tests/kernels/backward/attention_backward_test.ts";
import "../tests/kernels/backward/backward_test.ts";
import "../tests/kernels/product/f16_gemv_test.ts";
import "../tests/kernels/quantize/factorize_test.ts";
import "../tests/kernels/product/fused_gemv_test.ts";
import "../tests/kernels/product/gemm_test.ts";
import "../tests/kernels/product/prologue_epilogue_test.ts";
import "../tests/kernels/quantize/grid_quantizer_test.ts";
import "../tests/kernels/quantize/order_groups_test.ts";
import "../tests/kernels/quantize/outer_update_test.ts";
import "../tests/kernels/tokens/sampler_test.ts";
import "../tests/kernels/attention/prefill_attention_test.ts";
import "../tests/kernels/tokens/prefill_test.ts";
import "../tests/kernels/quantize/quantize_matrix_test.ts";
import "../tests/kernels/matrix/square_matrix_test.ts";
import "../tests/kernels/product/three_pass_gemv_test.ts";
import "../tests/kernels/product/two_pass_gemv_test.ts";
import { browserTests, type Test } from "../tests/test.ts";
import { element, setText } from "./elements.ts";

/** Runs the tests whose name has `part` one after the other and lists each as it ends. @throws {RangeError} for none */
export async function runKernelTests(part: string, signal: AbortSignal): Promise<void> {
  const tests = browserTests.filter(({ name }) => name.includes(part));
  if (tests.length === 0) throw new RangeError(`no kernel test has ${JSON.stringify(part)} in its name`);
  const list = element("tests", HTMLOListElement);
  list.replaceChildren();
  let failures = 0;
  const show = (state: string, done: number) =>
    setText("tests-summary", `${state}: ${done - failures} of ${tests.length} passed, ${failures} failed`);
  for (const [done, test] of tests.entries()) {
    if (signal.aborted) return show("Stopped", done);
    show("Running", done);
    if (!await runTest(test, list)) failures++;
  }
  show("Done", tests.length);
}

async function runTest({ name, run }: Test, list: HTMLOListElement): Promise<boolean> {
  const item = document.createElement("li");
  item.textContent = name;
  list.append(item);
  // The references on the CPU keep the page from being painted.
  await new Promise((painted) => setTimeout(painted, 10));
  const startMs = performance.now();
  let note: string | undefined;
  try {
    await run();
  } catch (error) {
    note = String(error);
  }
  item.className = note === undefined ? "pass" : "fail";
  const small = document.createElement("small");
  small.textContent = note ?? `${(performance.now() - startMs).toFixed(0)} ms`;
  item.append(small);
  return note === undefined;
}
