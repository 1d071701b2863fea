/** twobit. @module */
export * from "./quant/format.ts";
