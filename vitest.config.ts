// Two projects: tests beside the code, and tests that cross packages (one file at a time: they start processes).
import { defineConfig } from "vitest/config";

const crossing = [
  "tests/parity/**/*.test.ts",
  "tests/conformance/**/*.test.ts",
  "tests/e2e/**/*.test.ts",
  "tests/chart/**/*.test.ts",
  "tests/chaos/**/*.test.ts",
  "tests/store/**/*.test.ts",
  "tests/sim/**/*.test.ts",
];

export default defineConfig({
  test: {
    // ONNX Runtime writes usage files into the temporary folder otherwise.
    env: { ORT_DISABLE_TELEMETRY: "1" },
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      { extends: true, test: { name: "unit", include: ["packages/*/src/**/*.test.ts"] } },
      { extends: true, test: { name: "tidy", include: ["tests/tidy/**/*.test.ts"] } },
      {
        extends: true,
        test: {
          name: "crossing",
          include: crossing,
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
