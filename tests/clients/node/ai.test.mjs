// Vercel's AI SDK with its provider for OpenAI-compatible servers: text, streams, objects, a loop with a tool.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "mixcli",
  baseURL: process.env.MIXCLI_URL,
  apiKey: process.env.MIXCLI_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = provider("demo");
const prompt = "What is the capital of France?";
const greedy = { temperature: 0, maxOutputTokens: 12, maxRetries: 0 };
const oneCall = { providerOptions: { mixcli: { parallel_tool_calls: false } }, temperature: 0, maxOutputTokens: 60, maxRetries: 0 };
const city = z.enum(["Bern", "Oslo"]);

test("text", async () => {
  const done = await generateText({ model, prompt, ...greedy });
  assert.match(done.text, /Paris/);
  assert.ok(done.usage.outputTokens > 0);
});

test("a stream", async () => {
  const answer = streamText({ model, prompt, ...greedy });
  let text = "";
  for await (const piece of answer.textStream) text += piece;
  assert.match(text, /Paris/);
  assert.ok((await answer.usage).outputTokens > 0);
});

test("an object", async () => {
  const schema = z.object({ city, nights: z.literal(2) });
  const done = await generateText({ model, prompt: "Plan a trip.", output: Output.object({ schema }), maxRetries: 0 });
  assert.equal(done.output.nights, 2);
});

test("a loop with a tool", async () => {
  const asked = [];
  const getWeather = tool({
    description: "Get the weather of a city.",
    inputSchema: z.object({ city }),
    execute: async (input) => (asked.push(input.city), `It rains in ${input.city}.`),
  });
  const done = await generateText({
    model,
    prompt: "Will it rain?",
    tools: { getWeather },
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
    stopWhen: stepCountIs(2),
    ...oneCall,
  });
  assert.ok(asked.length > 0);
  assert.ok(asked.every((one) => city.safeParse(one).success));
  assert.equal(done.steps.length, 2);
  assert.ok(done.text);
});

test("a tool in a stream", async () => {
  const answer = streamText({
    model,
    prompt: "Will it rain?",
    tools: { getWeather: tool({ inputSchema: z.object({ city }) }) },
    toolChoice: "required",
    ...oneCall,
  });
  const calls = await answer.toolCalls;
  assert.ok(calls.length > 0);
  assert.ok(city.parse(calls[0].input.city));
});

test("completions", async () => {
  const done = await generateText({ model: provider.completionModel("demo"), prompt: "The capital of France is", ...greedy });
  assert.ok(done.text);
});
