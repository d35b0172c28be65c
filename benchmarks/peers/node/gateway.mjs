// The peer: a Node gateway as one would write it, with the same duties as far as its plugins know them.
import fastify from "fastify";
import jwt from "@fastify/jwt";
import proxy from "@fastify/http-proxy";
import rateLimit from "@fastify/rate-limit";
import Redis from "ioredis";

const { PORT, UPSTREAM, JWT_SECRET, VALKEY_SOCKET, VALKEY_PASSWORD } = process.env;

const app = fastify({ logger: false });
await app.register(jwt, {
  secret: JWT_SECRET,
  verify: { algorithms: ["HS256"], allowedAud: "heartguard", allowedIss: "heartguard", cache: true },
});
await app.register(rateLimit, {
  max: 1_000_000,
  timeWindow: 1000,
  redis: new Redis({ path: VALKEY_SOCKET, password: VALKEY_PASSWORD }),
});
await app.register(proxy, {
  upstream: UPSTREAM,
  prefix: "/auth",
  rewritePrefix: "/auth",
  preHandler: async (request) => {
    await request.jwtVerify();
  },
});
await app.listen({ host: "127.0.0.1", port: Number(PORT) });
