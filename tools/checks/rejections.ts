// Loaded by mocha before the tests (.mocharc.json). mocha lets a rejection that nobody handles pass; here it fails the test in
// which it happens, like any other error that nobody catches.
process.on("unhandledRejection", (reason) => {
  throw reason instanceof Error ? reason : new Error(`rejected with ${String(reason)}`);
});
