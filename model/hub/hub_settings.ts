// Where the Hugging Face hub is, where its cache is and who asks: the environment variables that all its tools share.
import { homedir } from "node:os";
import { join } from "@std/path";
import { undefinedIfMissing } from "../host/path_exists.ts";

/** How the hub is reached. */
export interface HubSettings {
  /** Address of the hub (HF_ENDPOINT). */
  readonly endpoint: string;
  /** Directory of the cache (HF_HUB_CACHE, or `hub` in HF_HOME). */
  readonly cache: string;
  /** Access token (HF_TOKEN, or the file that HF_TOKEN_PATH or HF_HOME/token names). */
  readonly token?: string;
  /** Use what is in the cache and never the network (HF_HUB_OFFLINE). */
  readonly offline: boolean;
  /** Wait before the second try of an interrupted download; each later one waits twice as long. */
  readonly retryDelayMs: number;
  /** A download that brings nothing for so long counts as interrupted. */
  readonly stallMs: number;
}

/** Reads the settings from the environment. @throws {RangeError} for an endpoint that is no URL */
export async function readHubSettings(): Promise<HubSettings> {
  const get = (name: string) => Deno.env.get(name) || undefined;
  const home = get("HF_HOME") ?? join(get("XDG_CACHE_HOME") ?? join(homedir(), ".cache"), "huggingface");
  const endpoint = (get("HF_ENDPOINT") ?? "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) {
    throw new RangeError(`HF_ENDPOINT is ${endpoint}, must be an http or https URL`);
  }
  const tokenPath = get("HF_TOKEN_PATH") ?? join(home, "token");
  const token = get("HF_TOKEN") ?? (await Deno.readTextFile(tokenPath).catch(undefinedIfMissing))?.trim();
  return {
    endpoint,
    cache: get("HF_HUB_CACHE") ?? get("HUGGINGFACE_HUB_CACHE") ?? join(home, "hub"),
    ...(token && { token }),
    offline: ["1", "ON", "YES", "TRUE"].includes(get("HF_HUB_OFFLINE")?.toUpperCase() ?? ""),
    retryDelayMs: 1000,
    stallMs: 60_000,
  };
}
