// node check.mjs FOLDER DTYPE TEXT...: what Transformers.js makes of an export, without a network
import { env, pipeline } from "@huggingface/transformers";
const [folder, dtype, ...texts] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = "/";
const classify = await pipeline("text-classification", folder, { dtype });
console.log(JSON.stringify(await classify(texts, { top_k: null })));
