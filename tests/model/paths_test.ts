import { writeHuggingFaceDirectory } from "../../model/files/huggingface_writer.ts";
import { openDirectory } from "../../model/files/open_directory.ts";
import { openPacked } from "../../model/files/open_packed.ts";
import { unfinished, writeBeside, writeTextBeside } from "../../model/host/atomic_file.ts";
import { lockPath } from "../../model/host/path_lock.ts";
import { quantizeModel } from "../../model/quantize_file.ts";
import type { QuantizeOptions } from "../../model/quantize_options.ts";
import { layersDirectory } from "../../model/quantize/finished_layers.ts";
import { assert, assertEquals, assertRejects } from "../assert.ts";
import { filesIn, inDirectory } from "../temporary.ts";

const FIXTURE = new URL("../fixtures/llama_tied_gqa", import.meta.url).pathname;
const options: QuantizeOptions = { method: "search", device: "cpu" };

/** A copy of the model that a test may change. */
async function copyModel(directory: string): Promise<string> {
  const model = `${directory}/model`;
  await Deno.mkdir(model);
  for (const file of ["config.json", "model.safetensors"]) {
    await Deno.copyFile(`${FIXTURE}/${file}`, `${model}/${file}`);
  }
  return model;
}

/** Ends a run after its first layer. */
async function interrupted(model: string, path: string): Promise<void> {
  const controller = new AbortController();
  const onProgress = (share: number) => share >= 0.5 && controller.abort();
  await quantizeModel(model, path, { ...options, onProgress, signal: controller.signal }).catch(() => {});
  assert(filesIn(layersDirectory(path)).includes("layer-0.safetensors"));
}

Deno.test("lockPath: of two at once one is refused, a lock left behind blocks nobody, and partial files go", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q`;
    await Deno.writeTextFile(`${path}.lock`, "");
    await Deno.mkdir(`${path}.partial-12`);
    await Deno.writeTextFile(`${path}.partial-12/a`, "");
    await Deno.writeTextFile(`${path}.partial-13-2`, "");
    await Deno.writeTextFile(`${path}.partial-mine`, "");
    const [a, b] = await Promise.allSettled([
      quantizeModel(FIXTURE, path, options),
      quantizeModel(FIXTURE, path, options),
    ]);
    assertEquals([a.status, b.status].sort(), ["fulfilled", "rejected"]);
    const { reason } = [a, b].find((run): run is PromiseRejectedResult => run.status === "rejected")!;
    assert(reason.message.startsWith(`${path} is being written by another run`), reason.message);
    assertEquals(filesIn(directory), ["q", "q.partial-mine"]);
    const lock = await lockPath(path);
    using packed = await openPacked(path);
    using _other = await lockPath(`${directory}/other`);
    await assertRejects(() => writeHuggingFaceDirectory(packed, `${directory}/other`), Error, "by another run");
    lock[Symbol.dispose]();
    using _again = await lockPath(path);
  }));

Deno.test("lockPath: another process that holds it and is killed", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/q`;
    const module = new URL("../../model/host/path_lock.ts", import.meta.url).href;
    const code = `using lock = await (await import("${module}")).lockPath("${path}");
      console.log("locked"); await new Promise((wake) => setTimeout(wake, 60_000));`;
    const child = new Deno.Command(Deno.execPath(), { args: ["eval", "--no-check", code], stdout: "piped" }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    await assertRejects(() => lockPath(path), Error, "is being written by another run");
    child.kill("SIGKILL");
    await child.status;
    await reader.cancel();
    assertEquals(filesIn(directory), ["q.lock"]);
    (await lockPath(path))[Symbol.dispose]();
    assertEquals(filesIn(directory), []);
  }));

Deno.test("lockPath, writeBeside: whenever an interrupt comes, its handler knows of each file that is there", () =>
  inDirectory(async (directory) => {
    const write = async () => {
      using _lock = await lockPath(`${directory}/q`);
      await writeBeside(`${directory}/q`, (write) => write(new Uint8Array(1)));
    };
    let isDone = false;
    const writing = write().finally(() => isDone = true);
    const seen = new Set<string>();
    const { port1, port2 } = new MessageChannel();
    while (!isDone) {
      for (const name of filesIn(directory)) {
        seen.add(name);
        assert(name === "q" || unfinished.has(`${directory}/${name}`), name);
      }
      // One turn of the loop of events, in which a handler could have run.
      await new Promise((turn) => {
        port2.onmessage = turn;
        port1.postMessage(0);
      });
    }
    port2.close();
    await writing;
    seen.delete("q");
    assertEquals([...seen].sort(), ["q.lock", `q.partial-${Deno.pid}`]);
  }));

Deno.test("lockPath: a directory that may be written but not listed is enough", () =>
  inDirectory(async (directory) => {
    await Deno.mkdir(`${directory}/box`);
    await Deno.chmod(directory, 0o755);
    await Deno.chmod(`${directory}/box`, 0o333);
    const module = new URL("../../model/host/path_lock.ts", import.meta.url).href;
    const code =
      `using lock = await (await import("${module}")).lockPath("${directory}/box/q"); console.log("locked");`;
    // Root may list any directory.
    const user = Deno.uid() === 0 ? ["setpriv", "--reuid=65534", "--clear-groups"] : [];
    const [command, ...args] = [...user, Deno.execPath(), "eval", "--no-check", code];
    const env = { DENO_DIR: `${directory}/box/cache`, HOME: directory, NO_COLOR: "1" };
    const { stdout, stderr } = await new Deno.Command(command, { args, env }).output();
    assertEquals(new TextDecoder().decode(stdout), "locked\n", new TextDecoder().decode(stderr));
    assertEquals(filesIn(`${directory}/box`).includes("q.lock"), false);
    await Deno.chmod(`${directory}/box`, 0o755);
  }));

Deno.test("quantizeModel: no output replaces the source, a directory, or what is no regular file", () =>
  inDirectory(async (directory) => {
    const model = await copyModel(directory);
    await Deno.link(`${model}/config.json`, `${directory}/alias`);
    for (const path of [`${model}/model.safetensors`, `${model}/config.json`, `${directory}/alias`]) {
      await assertRejects(() => quantizeModel(model, path, options), Error, `${path} is part of the source`);
    }
    await assertRejects(() => quantizeModel(model, model, options), Error, `${model} is a directory, must be a file`);
    await Deno.symlink("/dev/null", `${directory}/null`);
    await assertRejects(() => quantizeModel(model, `${directory}/null`, options), Error, "is a device or a pipe");
    await assertRejects(() => writeTextBeside("/dev/null", "text"), Error, "/dev/null is a device or a pipe");
    const layers = layersDirectory(`${directory}/q`);
    await Deno.mkdir(layers);
    await Deno.writeTextFile(`${layers}/thesis.txt`, "mine");
    await assertRejects(() => quantizeModel(model, `${directory}/q`, options), Error, `${layers} holds "thesis.txt"`);
    assertEquals([filesIn(layers), filesIn(directory)], [["thesis.txt"], ["alias", "model", "null", "q.layers"]]);
  }));

Deno.test("quantizeModel: a source that changes while it is read is noticed, one that is touched goes on", () =>
  inDirectory(async (directory) => {
    const [model, path] = [await copyModel(directory), `${directory}/q`];
    const weights = `${model}/model.safetensors`;
    const bytes = await Deno.readFile(weights);
    const whenHalfDone = (change: () => void) => ({
      ...options,
      onProgress: (share: number) => share >= 0.5 && change(),
    });
    const touch = () => Deno.utimeSync(weights, 1, 1);
    await quantizeModel(model, path, whenHalfDone(touch));
    const before = await Deno.readFile(path);
    const change = () => Deno.writeFileSync(weights, bytes.with(-1, bytes.at(-1)! ^ 1));
    const changed = quantizeModel(model, path, whenHalfDone(change));
    await assertRejects(() => changed, Error, `${weights} changed while it was read, must stay as it is`);
    assertEquals(filesIn(directory), ["model", "q"]);
    assertEquals(await Deno.readFile(path), before);
  }));

Deno.test("quantizeModel: a finished layer of another run is refused", () =>
  inDirectory(async (directory) => {
    const [model, path, other] = [await copyModel(directory), `${directory}/q`, `${directory}/other`];
    await interrupted(model, path);
    await Deno.writeFile(`${layersDirectory(path)}/layer-1.safetensors.partial-7`, new Uint8Array(8));
    await Deno.writeFile(`${model}/model.safetensors`, (await Deno.readFile(`${model}/model.safetensors`)).with(-1, 1));
    await interrupted(model, other);
    await Deno.copyFile(
      `${layersDirectory(other)}/layer-0.safetensors`,
      `${layersDirectory(path)}/layer-0.safetensors`,
    );
    await Deno.copyFile(`${FIXTURE}/model.safetensors`, `${model}/model.safetensors`);
    const resumed = () => quantizeModel(model, path, { ...options, resume: true });
    await assertRejects(
      resumed,
      RangeError,
      "layer-0.safetensors was made with other settings or from another checkpoint",
    );
    await Deno.remove(`${layersDirectory(path)}/layer-0.safetensors`);
    await resumed();
    await quantizeModel(model, `${directory}/whole`, options);
    assertEquals(await Deno.readFile(path), await Deno.readFile(`${directory}/whole`));
    assertEquals(filesIn(directory), ["model", "other.layers", "q", "whole"]);
  }));

Deno.test("openDirectory: no link leads outside but to the hub cache's blobs, only regular files are read", () =>
  inDirectory(async (directory) => {
    const model = await copyModel(directory);
    await Deno.writeTextFile(`${directory}/secret`, "secret");
    await Deno.symlink(`${directory}/secret`, `${model}/chat_template.jinja`);
    await Deno.symlink("config.json", `${model}/generation_config.json`);
    await Deno.mkdir(`${model}/tokenizer.json`);
    using checkpoint = await openDirectory(model);
    assertEquals(await checkpoint.readText("generation_config.json"), await checkpoint.readText("config.json"));
    const place = "must lead nowhere outside";
    await assertRejects(() => checkpoint.readText("chat_template.jinja"), SyntaxError, place);
    await assertRejects(() => checkpoint.readText("tokenizer.json"), SyntaxError, "tokenizer.json is not a file");
    await Deno.remove(`${model}/model.safetensors`);
    await Deno.symlink(`${FIXTURE}/model.safetensors`, `${model}/model.safetensors`);
    await assertRejects(() => openDirectory(model), SyntaxError, place);
    await Deno.remove(`${model}/model.safetensors`);
    await new Deno.Command("mkfifo", { args: [`${model}/model.safetensors`] }).output();
    await assertRejects(() => openDirectory(model), TypeError, "model.safetensors is not a file");

    const snapshot = `${directory}/models--a--b/snapshots/0123`;
    await Deno.mkdir(snapshot, { recursive: true });
    await Deno.mkdir(`${directory}/models--a--b/blobs`);
    for (const file of ["config.json", "model.safetensors"]) {
      await Deno.copyFile(`${FIXTURE}/${file}`, `${directory}/models--a--b/blobs/${file}`);
      await Deno.symlink(`../../blobs/${file}`, `${snapshot}/${file}`);
    }
    using cached = await openDirectory(snapshot);
    assertEquals(cached.config.layers, 2);
  }));
