/// <reference lib="dom" />
// The page: loads a model, generates text, runs the kernel tests; one thing at a time.
import { type Gpu, openGpu } from "../kernels/gpu/gpu.ts";
import { chooseTeam } from "../kernels/gpu/team.ts";
import { blobSource } from "../model/files/byte_source.ts";
import type { Checkpoint } from "../model/files/checkpoint.ts";
import { createEngine, type Engine } from "../model/engine/engine.ts";
import { readPackedCheckpoint } from "../model/files/packed_checkpoint.ts";
import { element, formatMiB, setText } from "./elements.ts";
import { generateText } from "./generation.ts";
import { runKernelTests } from "./kernel_tests.ts";
import { describeMissing } from "./missing.ts";
import { openServedModel } from "./served_model.ts";

try {
  const missing = await describeMissing();
  if (missing === undefined) startPage(await openGpu());
  else showProblem(missing);
} catch (error) {
  showProblem((error as Error).message);
}

function showProblem(message: string): void {
  const problem = element("problem", HTMLElement);
  problem.textContent = message;
  problem.hidden = false;
  problem.scrollIntoView({ block: "nearest" });
}

function startPage(gpu: Gpu): void {
  element("problem", HTMLElement).hidden = true;
  document.querySelector("main")!.hidden = false;
  showDevice(gpu);
  let engine: Engine | undefined;
  let isBusy = false;
  /** Does one thing, with the controls disabled but for its stop button. */
  const run = async (work: (signal: AbortSignal) => Promise<void>, stopId?: string) => {
    if (isBusy) return;
    const abort = new AbortController();
    const stop = stopId === undefined ? undefined : element(stopId, HTMLButtonElement);
    const setBusy = (busy: boolean) => {
      isBusy = busy;
      for (const control of document.querySelectorAll("[data-when-idle]")) control.toggleAttribute("disabled", busy);
      element("generate", HTMLButtonElement).disabled = busy || engine === undefined;
      if (stop) stop.disabled = !busy;
    };
    if (stop) stop.onclick = () => abort.abort();
    setBusy(true);
    element("problem", HTMLElement).hidden = true;
    try {
      await work(abort.signal);
    } catch (error) {
      showProblem((error as Error).message);
    }
    setBusy(false);
    showMemory(gpu);
  };
  const load = async (open: () => Promise<Checkpoint>) => {
    engine?.[Symbol.dispose]();
    engine = undefined;
    engine = await loadEngine(gpu, open);
  };
  const file = element("file", HTMLInputElement);
  file.onchange = () => {
    const [chosen] = file.files ?? [];
    if (chosen) run(() => load(() => readPackedCheckpoint(chosen.name, blobSource(chosen.name, chosen))));
  };
  const form = element("form", HTMLFormElement);
  form.onsubmit = (event) => {
    event.preventDefault();
    // Read now: controls count for nothing once they are disabled.
    const settings = new FormData(form);
    run(async (signal) => await generateText(engine!, settings, signal), "stop");
  };
  const part = element("part", HTMLInputElement);
  element("run-tests", HTMLButtonElement).onclick = () => {
    run((signal) => runKernelTests(part.value.trim(), signal), "stop-tests");
  };
  run(() => load(() => openServedModel(location.href)));
}

async function loadEngine(gpu: Gpu, open: () => Promise<Checkpoint>): Promise<Engine> {
  const progress = element("progress", HTMLProgressElement);
  progress.value = 0;
  progress.hidden = false;
  setText("model", "Loading");
  try {
    using checkpoint = await open();
    const onProgress = (share: number) => progress.value = share;
    const engine = await createEngine(checkpoint, { gpu, onProgress });
    const { layers, hidden } = engine.config;
    setText(
      "model",
      `${engine.name}: ${layers} layers of ${hidden}, ${formatMiB(engine.weights.sizeBytes)} of weights`,
    );
    element("chat", HTMLElement).hidden = !engine.prompts.hasTemplate;
    return engine;
  } catch (error) {
    setText("model", "No model");
    throw error;
  } finally {
    progress.hidden = true;
  }
}

function showDevice(gpu: Gpu): void {
  setText("device", gpu.isSoftware ? `${gpu.adapterName} (software: slow)` : gpu.adapterName);
  const { exchangeBytes, lanes } = chooseTeam(gpu.profile);
  setText("exchange", exchangeBytes === 0 ? `subgroups of ${lanes}` : "workgroup memory (no subgroups to use)");
  gpu.device.lost.then(({ message }) => showProblem(`The GPU is lost, reload the page: ${message}`));
}

function showMemory({ heldBytes, peakBytes }: Gpu): void {
  setText("memory", formatMiB(heldBytes));
  setText("peak", formatMiB(peakBytes));
}
