import { readResultSource } from "../../experiments/result_source.ts";
import { writeResult } from "../../experiments/results/result.ts";
import { assertEquals, assertRejects } from "../assert.ts";
import { inDirectory } from "../temporary.ts";
import { makeResult } from "./make_result.ts";

/** Makes `<root>/<device>/<id>.json` for each name. */
async function writeResults(root: string, names: readonly string[], title: string): Promise<void> {
  for (const name of names) {
    const [device, id] = name.split("/");
    await Deno.mkdir(`${root}/${device}`, { recursive: true });
    await writeResult(`${root}/${device}`, makeResult({ id, title }));
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
