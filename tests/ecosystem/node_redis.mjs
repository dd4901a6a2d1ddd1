// node-redis against the server whose port is the first argument: each line that is printed is one thing that worked.
import assert from "node:assert/strict";
import { createClient } from "redis";

const url = `redis://127.0.0.1:${process.argv[2]}/0`;

for (const RESP of [2, 3]) {
  const client = await createClient({ url, RESP }).connect();
  assert.equal(await client.set("k", "v", { expiration: { type: "EX", value: 60 } }), "OK");
  assert.equal(await client.get("k"), "v");
  assert.ok((await client.ttl("k")) > 0);
  await client.mSet({ a: "1", b: "2" });
  assert.deepEqual(await client.mGet(["a", "none", "b"]), ["1", null, "2"]);
  assert.equal(await client.incr("a"), 2);
  const keys = [];
  for await (const some of client.scanIterator({ MATCH: "[ab]" })) keys.push(...some);
  assert.deepEqual(keys.sort(), ["a", "b"]);
  await assert.rejects(client.lPush("list", "x"), /unknown command/);
  console.log(`RESP${RESP} commands`);

  assert.deepEqual(await client.multi().set("x", "1").incr("x").exec(), ["OK", 2]);
  await client.watch("x");
  const other = await client.duplicate().connect();
  await other.set("x", "9");
  await assert.rejects(client.multi().incr("x").exec(), /watched/);
  console.log(`RESP${RESP} transactions`);

  const listener = await client.duplicate().connect();
  const message = new Promise((resolve) => listener.subscribe("news", (text, channel) => resolve([channel, text])));
  const matched = new Promise((resolve) => listener.pSubscribe("n*", (text, channel) => resolve([channel, text])));
  while ((await client.publish("news", "hello")) < 2);
  assert.deepEqual(await message, ["news", "hello"]);
  assert.deepEqual(await matched, ["news", "hello"]);
  console.log(`RESP${RESP} messages`);
  await Promise.all([listener.close(), other.close(), client.close()]);
}

const cached = await createClient({ url, RESP: 3, clientSideCache: { maxEntries: 100 } }).connect();
const writer = await createClient({ url }).connect();
await writer.set("c", "old");
assert.equal(await cached.get("c"), "old");
assert.equal(await cached.get("c"), "old");
await writer.set("c", "new");
while ((await cached.get("c")) !== "new") await new Promise(setImmediate); // a hit in the cache reads no socket
console.log("client-side cache");
await Promise.all([cached.close(), writer.close()]);
