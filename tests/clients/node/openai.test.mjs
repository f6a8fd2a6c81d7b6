// openai for node: chat, streams, tools, structured output, responses, models, errors.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const client = new OpenAI({ baseURL: process.env.MIXCLI_URL, apiKey: process.env.MIXCLI_KEY, maxRetries: 0 });
const model = "demo";
const messages = [{ role: "user", content: "What is the capital of France?" }];
const city = z.enum(["Bern", "Oslo"]);
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the weather of a city.",
    parameters: {
      type: "object",
      properties: { city: { enum: ["Bern", "Oslo"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};

test("chat", async () => {
  const done = await client.chat.completions.create({ model, messages, max_tokens: 12, temperature: 0 });
  assert.match(done.choices[0].message.content, /Paris/);
  assert.equal(done.usage.total_tokens, done.usage.prompt_tokens + done.usage.completion_tokens);
});

test("a stream", async () => {
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 12, temperature: 0, stream: true });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  assert.match(text, /Paris/);
});

test("a schema", async () => {
  const done = await client.chat.completions.parse({
    model,
    messages: [{ role: "user", content: "Plan a trip." }],
    response_format: zodResponseFormat(z.object({ city, nights: z.literal(2) }), "trip"),
  });
  assert.equal(done.choices[0].message.parsed.nights, 2);
});

test("tools in a stream", async () => {
  const stream = client.chat.completions.stream({
    model,
    messages,
    tools: [weather],
    tool_choice: "required",
    parallel_tool_calls: false,
  });
  const done = await stream.finalChatCompletion();
  assert.ok(city.parse(JSON.parse(done.choices[0].message.tool_calls[0].function.arguments).city));
  assert.equal(done.choices[0].finish_reason, "tool_calls");
});

test("responses", async () => {
  const body = { model, input: "What is the capital of France?", max_output_tokens: 16, temperature: 0 };
  const done = await client.responses.create(body);
  assert.match(done.output_text, /Paris/);
  let text = "";
  for await (const event of await client.responses.create({ ...body, stream: true }))
    if (event.type === "response.output_text.delta") text += event.delta;
  assert.equal(text, done.output_text);
});

test("completions", async () => {
  const done = await client.completions.create({ model, prompt: "The capital of France is", max_tokens: 6, temperature: 0 });
  assert.match(done.choices[0].text, /Paris/);
});

test("models", async () => {
  const ids = [];
  for await (const found of client.models.list()) ids.push(found.id);
  assert.equal(ids.length, 1);
});

test("errors have their class", async () => {
  const stranger = new OpenAI({ baseURL: process.env.MIXCLI_URL, apiKey: "sk-of-somebody-else", maxRetries: 0 });
  await assert.rejects(stranger.chat.completions.create({ model, messages }), OpenAI.AuthenticationError);
  await assert.rejects(client.chat.completions.create({ model, messages, temperature: -1 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temperature");
    return true;
  });
});
