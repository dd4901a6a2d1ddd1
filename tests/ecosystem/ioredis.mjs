// ioredis against the server whose port is the first argument: each line that is printed is one thing that worked.
import assert from "node:assert/strict";
import { Redis } from "ioredis";

const client = new Redis({ port: Number(process.argv[2]), connectionName: "tester" });
assert.equal(await client.set("k", "v", "EX", 60), "OK");
assert.equal(await client.get("k"), "v");
assert.ok((await client.ttl("k")) > 0);
await client.mset({ a: 1, b: 2 });
assert.deepEqual(await client.mget("a", "none", "b"), ["1", null, "2"]);
assert.equal(await client.client("GETNAME"), "tester");
const keys = [];
for await (const some of client.scanStream({ match: "[ab]" })) keys.push(...some);
assert.deepEqual(keys.sort(), ["a", "b"]);
assert.deepEqual(await client.getBuffer("k"), Buffer.from("v"));
await assert.rejects(client.lpush("list", "x"), /unknown command/);
console.log("commands");

assert.deepEqual(await client.pipeline().set("p", 1).incr("p").get("none").exec(), [[null, "OK"], [null, 2], [null, null]]);
console.log("pipelines");

assert.deepEqual(await client.multi().set("x", 1).incr("x").exec(), [[null, "OK"], [null, 2]]);
await client.watch("x");
const other = client.duplicate();
await other.set("x", 9);
assert.equal(await client.multi().incr("x").exec(), null);
console.log("transactions");

const listener = client.duplicate();
await listener.subscribe("news");
await listener.psubscribe("n*");
const heard = Promise.all([
  new Promise((resolve) => listener.once("message", (channel, text) => resolve([channel, text]))),
  new Promise((resolve) => listener.once("pmessage", (pattern, channel, text) => resolve([pattern, channel, text]))),
]);
assert.equal(await client.publish("news", "hello"), 2);
assert.deepEqual(await heard, [["news", "hello"], ["n*", "news", "hello"]]);
console.log("messages");
for (const each of [listener, other, client]) each.disconnect();
