// A small client of Chromium's DevTools protocol: opens a page, runs scripts in it, takes pictures, hears errors.

/** A page in a headless browser. */
export interface Page {
  /** Everything that the console called an error, uncaught exceptions and failed or refused requests. */
  readonly errors: readonly string[];
  /** URLs that the page asked for. */
  readonly requests: readonly string[];
  /** Sends a command of the protocol. */
  send(method: string, parameters?: object): Promise<Record<string, unknown>>;
  /** Width of the window in CSS pixels, and the colour scheme that the reader wants. */
  emulate(width: number, scheme: "light" | "dark"): Promise<void>;
  /** Opens a URL and waits until it is loaded. */
  open(url: string): Promise<void>;
  /** Value of an expression in the page, awaited. @throws {Error} what it throws */
  evaluate(expression: string): Promise<unknown>;
  /** Waits until an expression is true in the page. @throws {Error} when it isn't within the time */
  waitFor(expression: string, timeoutMs: number): Promise<void>;
}

/** Flags that give WebGPU on SwiftShader, a software adapter that Chromium brings along; by default there is none. */
export const WITH_WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** Starts Chromium, hands over a page, and ends Chromium. @throws {Error} where there is none */
export async function withPage(use: (page: Page) => Promise<void>, flags = ["--disable-gpu"]): Promise<void> {
  const profile = await Deno.makeTempDir();
  const browser = startChromium(profile, flags);
  try {
    const origin = await debuggingOrigin(browser.stderr);
    const target = await fetch(`http://${origin}/json/new?about:blank`, { method: "PUT" });
    const { webSocketDebuggerUrl } = await target.json();
    const socket = new WebSocket(webSocketDebuggerUrl);
    await once(socket, "open");
    const page = await createPage(socket);
    await use(page);
    socket.close();
    await once(socket, "close");
  } finally {
    browser.kill("SIGTERM");
    await browser.status;
    await removeProfile(profile);
  }
}

/** Chromium's other processes end a little later and write to the profile until then. */
async function removeProfile(profile: string): Promise<void> {
  for (let attempt = 0;; attempt++) {
    try {
      return await Deno.remove(profile, { recursive: true });
    } catch (error) {
      if (attempt === 50) throw error;
      await new Promise((wake) => setTimeout(wake, 100));
    }
  }
}

function startChromium(profile: string, flags: readonly string[]): Deno.ChildProcess {
  const args = ["--headless", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", ...flags];
  try {
    return new Deno.Command("chromium", {
      args: [...args, `--user-data-dir=${profile}`, "--remote-debugging-port=0", "about:blank"],
      stdout: "null",
      stderr: "piped",
    }).spawn();
  } catch (cause) {
    throw new Error("chromium is not there, install it with sh tests/browser/setup.sh", { cause });
  }
}

/** Host and port, which Chromium tells on its standard error; what else it says there is let go. */
async function debuggingOrigin(stderr: ReadableStream<Uint8Array>): Promise<string> {
  const [head, rest] = stderr.tee();
  rest.pipeTo(new WritableStream()).catch(() => {}); // ends with the browser
  let text = "";
  for await (const chunk of head.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>)) {
    text += chunk;
    const found = text.match(/DevTools listening on ws:\/\/([^/]+)\//);
    if (found) return found[1];
  }
  throw new Error(`chromium ended before it listened: ${text}`);
}

function once(target: EventTarget, type: string): Promise<Event> {
  return new Promise((resolve, reject) => {
    target.addEventListener(type, resolve, { once: true });
    target.addEventListener("error", () => reject(new Error(`the connection failed before ${type}`)), { once: true });
  });
}

interface Message {
  readonly id?: number;
  readonly method?: string;
  // deno-lint-ignore no-explicit-any -- the protocol's own types are long
  readonly params?: any;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
}

async function createPage(socket: WebSocket): Promise<Page> {
  const errors: string[] = [];
  const requests: string[] = [];
  const pending = new Map<number, (message: Message) => void>();
  const events = new EventTarget();
  let lastId = 0;
  socket.addEventListener("message", ({ data }) => {
    const message: Message = JSON.parse(data);
    if (message.id !== undefined) return pending.get(message.id)?.(message);
    note(message, errors, requests);
    events.dispatchEvent(new Event(message.method!));
  });
  const send = async (method: string, params: object = {}) => {
    const id = ++lastId;
    const answer = new Promise<Message>((resolve) => pending.set(id, resolve));
    socket.send(JSON.stringify({ id, method, params }));
    const { result, error } = await answer;
    pending.delete(id);
    if (error) throw new Error(`${method}: ${error.message}`);
    return result ?? {};
  };
  const evaluate = async (expression: string) => {
    const parameters = { expression, returnByValue: true, awaitPromise: true };
    const { result, exceptionDetails } = await send("Runtime.evaluate", parameters);
    if (exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value?: unknown }).value;
  };
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`);
  return {
    errors,
    requests,
    send,
    async emulate(width, scheme) {
      await send("Emulation.setDeviceMetricsOverride", { width, height: 900, deviceScaleFactor: 1, mobile: false });
      await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: scheme }] });
    },
    async open(url) {
      const loaded = once(events, "Page.loadEventFired");
      await send("Page.navigate", { url });
      await loaded;
    },
    evaluate,
    async waitFor(expression, timeoutMs) {
      const endMs = performance.now() + timeoutMs;
      while (await evaluate(expression) !== true) {
        if (performance.now() > endMs) throw new Error(`after ${timeoutMs} ms not yet: ${expression}`);
        await new Promise((wake) => setTimeout(wake, 100));
      }
    },
  };
}

function note({ method, params }: Message, errors: string[], requests: string[]): void {
  if (method === "Network.requestWillBeSent") requests.push(params.request.url);
  if (method === "Network.loadingFailed") errors.push(`request failed: ${params.errorText}`);
  if (method === "Runtime.exceptionThrown") errors.push(JSON.stringify(params.exceptionDetails));
  if (method === "Log.entryAdded" && params.entry.level === "error") errors.push(params.entry.text);
  if (method === "Runtime.consoleAPICalled" && params.type === "error") errors.push(JSON.stringify(params.args));
}
