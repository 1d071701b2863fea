import { EXPERIMENTS } from "../../experiments/registry.ts";
import { withoutDirectories } from "../../experiments/provenance.ts";
import { readResultSource } from "../../experiments/result_source.ts";
import { writeResult } from "../../experiments/results/result.ts";
import { refuseOtherModel, resultPlace } from "../../experiments/run.ts";
import { assertEquals, assertRejects } from "../assert.ts";
import { inDirectory } from "../temporary.ts";
import { makeResult } from "./make_result.ts";

/** Makes `<root>/<name>.json` for each name. */
async function writeResults(root: string, names: readonly string[], title: string): Promise<void> {
  for (const name of names) {
    const [, place, id] = /^(.*)\/(.*)$/.exec(name)!;
    await Deno.mkdir(`${root}/${place}`, { recursive: true });
    await writeResult(`${root}/${place}`, makeResult({ id, title }));
  }
}

Deno.test("readResultSource: a device's directory, a directory of devices, a device's name", () =>
  inDirectory(async (root) => {
    await writeResults(root, ["gpu/a", "software/a", "software/b", "quick/a"], "");
    const namesOf = async (source: string) => [...(await readResultSource(source, root)).keys()];
    assertEquals(await namesOf(`${root}/software`), ["a", "b"]);
    assertEquals(await namesOf("software"), ["a", "b"]);
    assertEquals(await namesOf(root), ["gpu/a", "software/a", "software/b"]);
    await assertRejects(
      () => readResultSource("phone", root),
      Error,
      "phone is nothing to compare, must be a directory, a device (gpu, software) or git:REVISION",
    );
  }));

Deno.test("readResultSource: results of models lie below their device's", () =>
  inDirectory(async (root) => {
    await writeResults(root, ["gpu/a", "gpu/big/a", "gpu/big/b", "quick/big/a"], "");
    const namesOf = async (source: string) => [...(await readResultSource(source, root)).keys()];
    assertEquals(await namesOf(root), ["gpu/a", "gpu/big/a", "gpu/big/b"]);
    assertEquals(await namesOf("gpu"), ["a", "big/a", "big/b"]);
    assertEquals(await namesOf(`${root}/gpu/big`), ["a", "b"]);
  }));

Deno.test("resultPlace: a directory for each model but the embedded one; by hand", () => {
  const [measuring, modelFree] = [true, false].map((needsModel) => ({ ...EXPERIMENTS[0], needsModel }));
  const cases = [
    ["tiny", "gpu"],
    ["hf:HuggingFaceTB/SmolLM2-135M-Instruct@main", "gpu/smollm2-135m-instruct"],
    ["models/SmolLM2-135M-Instruct.Q4_1.gguf", "gpu/smollm2-135m-instruct"],
    ["models/llama-7b-F16.gguf", "gpu/llama-7b"],
    ["./models/My Model/", "gpu/my-model"],
    ["q.safetensors", "gpu/q"],
  ];
  for (const [name, place] of cases) assertEquals(resultPlace("gpu", name, measuring), place);
  assertEquals(resultPlace("gpu", "hf:a/b", modelFree), "gpu");
});

Deno.test("readResultSource: a revision has what was committed then; without git that is said", () =>
  inDirectory(async (repository) => {
    const root = `${repository}/results`;
    await writeResults(root, ["gpu/a", "software/b"], "old");
    if (!await hasGit()) {
      await assertRejects(() => readResultSource("git:HEAD", root), Error, "git is not there");
      return;
    }
    const identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
    for (const args of [["init", "-q"], ["add", "-A"], [...identity, "commit", "-qm", "first"]]) {
      const { success, stderr } = await new Deno.Command("git", { args, cwd: repository }).output();
      assertEquals([success, new TextDecoder().decode(stderr)], [true, ""]);
    }
    await writeResults(root, ["gpu/a", "gpu/c"], "new");
    const committed = await readResultSource("git:HEAD", root);
    assertEquals(Array.from(committed, ([name, { title }]) => [name, title]), [["gpu/a", "old"], [
      "software/b",
      "old",
    ]]);
    assertEquals((await readResultSource(root)).get("gpu/a")?.title, "new");
    await assertRejects(
      () => readResultSource("git:none", root),
      Error,
      "git ls-tree: fatal: Not a valid object name none",
    );
  }));

async function hasGit(): Promise<boolean> {
  try {
    return (await new Deno.Command("git", { args: ["--version"], stdout: "null" }).output()).success;
  } catch {
    return false;
  }
}

Deno.test("refuseOtherModel: a result of another file is not written over, one of the same file is", () =>
  inDirectory(async (directory) => {
    await writeResult(directory, makeResult({ id: "a" }));
    const { environment: { model } } = makeResult();
    const refuse = (id: string, sha256: string, needsModel = true) =>
      refuseOtherModel(directory, { id, needsModel }, { name: "b.Q8_0.gguf", sha256 });
    await refuse("a", model.sha256);
    await refuse("other", "0123");
    await refuse("a", "0123", false);
    await assertRejects(
      () => refuse("a", "0123456789abcdef0123"),
      Error,
      `${directory}/a.json is of tiny (sha256 fedcba9876543210), the model is b.Q8_0.gguf (sha256 0123456789abcdef), must`,
    );
  }));

Deno.test("withoutDirectories: file names, behind a kind of text and joined; names of the hub stay", () => {
  const cases = [
    ["/tmp/t/SmolLM2.Q4_1.gguf", "SmolLM2.Q4_1.gguf"],
    ["./models/My Model/", "My Model"],
    ["file:.scratch/text.txt+mix+self", "file:text.txt+mix+self"],
    ["hf:ORG/NAME@main", "hf:ORG/NAME@main"],
    ["arc_easy:/data/arc.jsonl", "arc_easy:arc.jsonl"],
    ["arc_easy:/d/a.jsonl,piqa:/d/p.jsonl", "arc_easy:a.jsonl,piqa:p.jsonl"],
    ["mix+file:/home/c++/a,b/x.txt+file:/d/y.txt", "mix+file:x.txt+file:y.txt"],
    ["/home/c++/models/x.gguf", "x.gguf"],
    ["/home/a,b/x.gguf", "x.gguf"],
    ["/", "/"],
    ["//", "/"],
    ["../..", ".."],
    ["accuracy,outliers", "accuracy,outliers"],
    ["tiny", "tiny"],
  ];
  for (const [name, wanted] of cases) assertEquals(withoutDirectories(name), wanted);
});
