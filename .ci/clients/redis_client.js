// ioredis against the Redis example: node redis_client.js HOST:PORT, with ioredis in NODE_PATH
"use strict";
const assert = require("node:assert");
const Redis = require("ioredis");

const [, host, port] = /^(.*):(\d+)$/.exec(process.argv[2]);
const connect = () => new Redis({ host, port: Number(port), maxRetriesPerRequest: 1 });

async function main() {
  const redis = connect();
  const hearer = connect();
  assert.equal(await redis.ping(), "PONG");
  assert.equal(await redis.set("a", "1", "EX", 100), "OK");
  assert.equal(await redis.get("a"), "1");
  assert.equal(await redis.set("a", "2", "NX"), null);
  await redis.hset("h", { f: "1", g: "2" });
  assert.deepEqual(await redis.hgetall("h"), { f: "1", g: "2" });
  await redis.rpush("l", "a", "b");
  assert.deepEqual(await redis.lrange("l", 0, -1), ["a", "b"]);
  await assert.rejects(redis.get("h"), /^ReplyError: WRONGTYPE/);

  const counts = await Promise.all(Array.from({ length: 10000 }, () => redis.incr("n")));
  assert.deepEqual(counts, Array.from({ length: 10000 }, (_, index) => index + 1));
  const answers = await redis.pipeline().set("p", "1").get("p").incr("p").exec();
  assert.deepEqual(answers, [[null, "OK"], [null, "1"], [null, 2]]);

  assert.equal(await hearer.subscribe("news"), 1);
  const heard = new Promise((resolve) => hearer.on("message", (...message) => resolve(message)));
  assert.equal(await redis.publish("news", "hello"), 1);
  assert.deepEqual(await heard, ["news", "hello"]);

  assert.equal(await redis.flushall(), "OK");
  await Promise.all([redis.quit(), hearer.quit()]);
  console.log(`ioredis ${require("ioredis/package.json").version}: ok`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
