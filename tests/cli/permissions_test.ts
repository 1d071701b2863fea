/** The permissions that the documents name for each command are enough, and each that is missing is one line. */
import { assert, assertEquals } from "../assert.ts";
import { serveHub } from "../model/hub/fake_hub.ts";
import { inDirectory } from "../temporary.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const DOCUMENT = (await Deno.readTextFile(`${ROOT}docs/your-own-model.md`)).split("\n## Permissions\n")[1];

const FIXTURES = `${ROOT}tests/fixtures/`;

/** A model of two layers, with a tokenizer. */
const MODEL = `${FIXTURES}gguf/llama_spm.gguf`;

/** The flags of a command by its row in the document, for a model and the directory of what is written. */
function flagsOf(command: string, model: string, out: string): string[] {
  const row = DOCUMENT.split("\n").find((line) => line.split("|")[1]?.includes(`\`${command}\``));
  const [, flags] = /`(--allow-[^`]*)`/.exec(row ?? "") ?? [];
  assert(flags !== undefined, `the document has no flags of ${command}`);
  const places: Readonly<Record<string, string>> = { MODEL: model, OUT: out, TWOBIT: ROOT };
  return flags.replaceAll(/\b[A-Z]+(?=[, ]|$)/g, (place) => places[place]).split(" ");
}

async function run(
  flags: readonly string[],
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
) {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-check", "--quiet", ...flags, `${ROOT}cli/main.ts`, ...args],
    env: { NO_COLOR: "1", XDG_RUNTIME_DIR: "/tmp", ...env },
    cwd: ROOT,
  }).output();
  return { code, message: new TextDecoder().decode(stderr) };
}

/** Runs a command with what the document names, then without each of the permissions. */
async function checkCommand(
  name: string,
  args: readonly string[],
  model: string,
  out: string,
): Promise<void> {
  const all = [...name.split(" "), ...args];
  const flags = flagsOf(name, model, out);
  const { code, message } = await run(flags, all);
  assertEquals(code, 0, `${name} with ${flags.join(" ")}: ${message}`);
  for (const flag of flags) {
    // Without git the commit is unknown, and the result says so.
    if (flag === "--allow-run=git") continue;
    const without = await run(flags.filter((other) => other !== flag), all);
    const kind = /^--allow-(\w+)/.exec(flag)![1];
    const isOneLine = new RegExp(`^\\w+: .*[Rr]equires? ${kind} access to .*--allow-${kind} flag\n$`);
    assertEquals(without.code, 1, `${name} without ${flag}: ${without.message}`);
    assert(isOneLine.test(without.message), `${name} without ${flag}: ${without.message}`);
  }
}

Deno.test("permissions: generate, perplexity and bench run with the flags of the document", () =>
  inDirectory(async (out) => {
    const model = ["--model", MODEL];
    await checkCommand("generate", [...model, "--prompt", "a", "--max-tokens", "2"], MODEL, out);
    await checkCommand(
      "perplexity",
      [...model, "--device", "cpu", "--windows", "2", "--window-tokens", "32"],
      MODEL,
      out,
    );
    await checkCommand("bench", [...model, "--prompt", "4", "--generate", "2", "--repetitions", "1"], MODEL, out);
  }));

Deno.test("permissions: quantize and dequantize run with the flags of the document", () =>
  inDirectory(async (out) => {
    const packed = `${out}/q.safetensors`;
    const settings = ["--method", "search", "--device", "cpu", "--force"];
    await checkCommand("quantize", ["--model", MODEL, "--out", packed, ...settings], MODEL, out);
    const [read, write] = flagsOf("dequantize", packed, out);
    const args = ["dequantize", "--in", packed, "--out", `${out}/decoded`];
    // What is missing is said before anything is written.
    for (const flags of [[read], [write]]) assertEquals((await run(flags, args)).code, 1);
    assertEquals((await run([read, write], args)).code, 0);
  }));

Deno.test("permissions: commands of results, and doctor, run with the flags of the document", () =>
  inDirectory(async (out) => {
    await checkCommand("compare", ["results", "results"], "", `${ROOT}results`);
    await checkCommand("render --check", [], "", out);
    await checkCommand("report", ["--out", `${out}/report.html`], "", out);
    await checkCommand("experiment", ["ranges", "--quick", "--out", out], "", out);
    await checkCommand("doctor", [], "", out);
  }));

Deno.test("permissions: Dawn is opened with the flags of the document, whether it finds an adapter or not", async () => {
  const flags = /`--webgpu dawn` loads [^`]*`([^`]*)`/.exec(DOCUMENT)![1].replaceAll("TWOBIT", ROOT).split(" ");
  const args = ["generate", "--webgpu", "dawn", "--model", MODEL, "--prompt", "a", "--max-tokens", "2"];
  const messages: string[] = [];
  for (let count = 0; count <= flags.length; count++) messages.push((await run(flags.slice(0, count), args)).message);
  const missing = messages.map((message) => /Requires (\w+) access/.exec(message)?.[1]);
  assertEquals(missing, ["read", "ffi", undefined], messages.join("\n"));
});

Deno.test("permissions: a model of the hub is loaded with the flags of the document", () =>
  inDirectory(async (home) => {
    const [env, others] = /```text\n(--allow-env.*)\n(.*)\n```/.exec(DOCUMENT)!.slice(1);
    const flags = [env, ...others.split(" ")];
    const names = ["config.json", "model.safetensors"];
    const files = new Map(names.map((name) => [name, Deno.readFileSync(`${FIXTURES}llama_tied_gqa/${name}`)]));
    files.set("tokenizer.json", Deno.readFileSync(`${ROOT}model/tiny/tokenizer.json`));
    await using hub = serveHub("org/model", files);
    const variables = { HF_HOME: home, HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: "", HF_HUB_OFFLINE: "", HF_TOKEN: "" };
    const evaluate = (flags: readonly string[]) =>
      run(flags, ["perplexity", "--model", "hf:org/model", "--device", "cpu"], variables);
    for (const flag of flags) {
      const { code, message } = await evaluate(flags.filter((other) => other !== flag));
      assertEquals(code, 1);
      assert(/^perplexity: .*requires? .*--allow-\w+.*\n$/i.test(message), `without ${flag}: ${message}`);
    }
    // The tokenizer is of another model, which is found out when both are there.
    const { message } = await evaluate(flags);
    assert(message.includes("the tokenizer has 4096 tokens, must have at most the model's 96"), message);
  }));
