// A service that costs next to nothing: the same small answer to every request.
import http from "node:http";

const body = Buffer.from('{"id":1,"email":"a@hg.io","role":"user","org_id":1,"created_at":"2024-06-01T10:00:00Z"}');
const headers = { "Content-Type": "application/json", "Content-Length": body.length, Vary: "Accept" };

http
  .createServer({ keepAliveTimeout: 120_000 }, (request, response) => {
    request.resume();
    response.writeHead(200, headers);
    response.end(body);
  })
  .listen(Number(process.env.PORT), "127.0.0.1");
