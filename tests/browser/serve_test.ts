// The page of `deno task serve` in a real browser, on the software adapter that Chromium brings along.
import { main } from "../../cli/main.ts";
import { loadEngine } from "../../model/load_engine.ts";
import { findModelFiles } from "../../web/model_files.ts";
import { createHandler } from "../../web/server.ts";
import { assert, assertEquals, assertStringIncludes } from "../assert.ts";
import { inDirectory } from "../temporary.ts";
import { type Page, WITH_WEBGPU, withPage } from "./chromium.ts";

const PROMPT = "Fellow citizens,";
const MAX_TOKENS = 6;
/** The software adapter takes about a second for a token where others use the machine too. */
const PATIENCE_MS = 120_000;

/** Text of an element. */
const TEXT = (id: string) => `document.getElementById("${id}").textContent`;
const CLICK = (id: string) => `document.getElementById("${id}").click()`;
const IDLE = `document.getElementById("generate").disabled === false`;

/** Asks for no limit and no feature that WebGPU doesn't promise everywhere. */
const LEAST_DEVICE = `{
  const requestDevice = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = function () { return requestDevice.call(this); };
  GPUSupportedFeatures.prototype.has = () => false;
}`;

/** Serves the page and hands over its address in a browser. */
async function withServed(use: (page: Page, address: string) => Promise<void>, flags = WITH_WEBGPU): Promise<void> {
  const handler = await createHandler(await findModelFiles("tiny"));
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, handler);
  try {
    await withPage((page) => use(page, `http://127.0.0.1:${server.addr.port}/`), flags);
  } finally {
    await server.shutdown();
  }
}

/** Greedy text of a model by the engine under Deno. */
async function generateHere(model: string): Promise<string> {
  using engine = await loadEngine(model);
  let text = "";
  for await (const piece of engine.generate(PROMPT, { maxTokens: MAX_TOKENS })) text += piece;
  return text;
}

/** Sets the form, generates, and returns the text. */
async function generateThere(page: Page, settings: Readonly<Record<string, string | number>>): Promise<string> {
  for (const [name, value] of Object.entries({ prompt: PROMPT, maxTokens: MAX_TOKENS, ...settings })) {
    await page.evaluate(`document.forms[0].elements.${name}.value = ${JSON.stringify(value)}`);
  }
  await page.evaluate(CLICK("generate"));
  await page.waitFor(IDLE, PATIENCE_MS);
  return await page.evaluate(TEXT("text")) as string;
}

const NO_INTERRUPT = { signal: new AbortController().signal, begin: () => {} };

Deno.test("serve: the page's text is the command line's, also on the least device that WebGPU promises", () =>
  withServed(async (page, address) => {
    const expected = await generateHere("tiny");
    for (const script of ["", LEAST_DEVICE]) {
      await page.send("Page.addScriptToEvaluateOnNewDocument", { source: script });
      await page.open(address);
      await page.waitFor(IDLE, PATIENCE_MS);
      assertStringIncludes(await page.evaluate(TEXT("model")) as string, "tiny: 5 layers of 512, 25 MiB");
      assertEquals(await generateThere(page, {}), expected);
      assertStringIncludes(await page.evaluate(TEXT("speed")) as string, "tokens/s");
      assertStringIncludes(await page.evaluate(TEXT("tokens")) as string, `${MAX_TOKENS} after`);
      assertEquals(await page.evaluate(TEXT("reason")), "length");
      assert(parseInt(await page.evaluate(TEXT("peak")) as string) >= 25, "memory is shown");
    }
    assertEquals(page.errors, []);
  }));

Deno.test("serve: a packed file that the person chooses, drawn from its one likeliest token; stop ends a text", () =>
  inDirectory((directory) =>
    withServed(async (page, address) => {
      const file = `${directory}/q.safetensors`;
      const settings = ["--method", "search", "--layers", "layers\\.[1-4]\\.", "--out", file];
      assertEquals(await main(["quantize", ...settings], NO_INTERRUPT), 0);
      await page.open(address);
      await page.waitFor(IDLE, PATIENCE_MS);
      const { root } = await page.send("DOM.getDocument") as { root: { nodeId: number } };
      const { nodeId } = await page.send("DOM.querySelector", { nodeId: root.nodeId, selector: "#file" });
      await page.send("DOM.setFileInputFiles", { nodeId, files: [file] });
      await page.waitFor(`${TEXT("model")}.startsWith("q.safetensors: ") && ${IDLE}`, PATIENCE_MS);
      assertEquals(await generateThere(page, { temperature: 1, topK: 1 }), await generateHere(file));

      await page.evaluate(`document.forms[0].elements.maxTokens.value = 1000; ${CLICK("generate")}`);
      await page.waitFor(`${TEXT("text")} !== ""`, PATIENCE_MS);
      await page.evaluate(CLICK("stop"));
      await page.waitFor(IDLE, PATIENCE_MS);
      assertEquals(await page.evaluate(TEXT("reason")), "aborted");
      assertEquals(page.errors, []);
    })
  ));

Deno.test("serve: kernel tests run in the page and pass; a choice that fits none is refused", () =>
  withServed(async (page, address) => {
    await page.open(address);
    await page.waitFor(IDLE, PATIENCE_MS);
    for (
      const part of ["f16_gemv without", "fused_gemv without", "pack_activations", "rms_norm: ", "without a Hessian"]
    ) {
      await page.evaluate(`document.getElementById("part").value = "${part}"; ${CLICK("run-tests")}`);
      await page.waitFor(IDLE, PATIENCE_MS);
      const rows = `[...document.querySelectorAll("#tests li")].map((row) => [row.className, row.textContent])`;
      const results = await page.evaluate(rows) as string[][];
      assert(results.length > 0);
      for (const [state, text] of results) assertEquals(state, "pass", text);
    }
    await page.evaluate(`document.getElementById("part").value = "no such"; ${CLICK("run-tests")}`);
    await page.waitFor(IDLE, PATIENCE_MS);
    assertEquals(await page.evaluate(TEXT("problem")), 'no kernel test has "no such" in its name');
    assertEquals(page.errors, []);
  }));

Deno.test("serve: what is missing is said: a GPU, WebGPU, a browser that can read the script", () =>
  withServed(async (page, address) => {
    const starting = "This page has not started";
    const check = async (script: string, message: string) => {
      await page.send("Page.addScriptToEvaluateOnNewDocument", { source: script });
      await page.open(address);
      if (message !== starting) await page.waitFor(`!${TEXT("problem")}.includes("${starting}")`, PATIENCE_MS);
      assertStringIncludes(await page.evaluate(TEXT("problem")) as string, message);
      assertEquals(await page.evaluate('document.querySelector("main").hidden'), true);
    };
    await check("", "found no GPU that it can use");
    await check("delete Navigator.prototype.gpu", "This browser has no WebGPU");
    assertEquals(page.errors, []);
    await check("delete globalThis.Float16Array", starting);
  }, ["--disable-gpu"]));

Deno.test("serve: nothing is cut off, wide and narrow, and the page follows the reader's colour scheme", () =>
  withServed(async (page, address) => {
    const colour = "getComputedStyle(document.body).backgroundColor";
    for (
      const [width, scheme, background] of [
        [1400, "light", "rgb(255, 255, 255)"],
        [400, "dark", "rgb(13, 17, 23)"],
      ] as const
    ) {
      await page.emulate(width, scheme);
      await page.open(address);
      await page.waitFor(IDLE, PATIENCE_MS);
      assertEquals(await page.evaluate("document.documentElement.scrollWidth"), width);
      assertEquals(await page.evaluate(colour), background);
    }
    const others = page.requests.filter((url) => !url.startsWith(address) && !url.startsWith("data:"));
    assertEquals(others, []);
    assertEquals(page.errors, []);
  }));
