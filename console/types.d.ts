// What the service answers and what the libraries are, for the checker alone.

/// <reference path="./node_modules/uplot/dist/uPlot.d.ts" />
/// <reference path="./node_modules/preact/src/index.d.ts" />

declare var preactHooks: typeof import("preact/hooks");
declare var htm: { bind<Result>(h: (...given: any[]) => Result): (strings: TemplateStringsArray, ...values: unknown[]) => Result | Result[] };

interface Route {
  page: string;
  params: Record<string, string>;
  set: (changes: Record<string, string | null>) => void;
}

interface ModelInfo {
  model: string;
  variant: string;
  aliases: string[];
  task: string;
  device: string | null;
  isa: string | null;
  runtime: string;
  recipe: string;
  recipe_summary: string;
  artifact: string | null;
  weights_bytes: number | null;
  disk_bytes: number | null;
  kv_cache_bytes: number | null;
  resident_bytes: number | null;
  private_bytes: number | null;
  peak_bytes: number | null;
  load_seconds: number | null;
  remark?: string;
  max_tokens: number | null;
  width: number | null;
  labels: string[] | null;
  default: boolean;
  reference: boolean;
  ready: boolean;
  reason: string | null;
  replicas: number;
  path: string;
}

interface ModelEntry {
  id: string;
  quantserve: ModelInfo;
}

interface StateEntry {
  model: string;
  variant: string;
  state: "waiting" | "preparing" | "loading" | "ready" | "failed";
  reason: string;
  replicas: number;
}

interface Figures {
  model: string;
  variant: string;
  requests_per_s: number;
  failed_per_s: number;
  tokens_per_s: number;
  p50_ms: number | null;
  p95_ms: number | null;
  core_wait_ms: number | null;
  answers_per_busy_s: number | null;
  within: [ms: number, share: number][];
  weights_bytes?: number;
  resident_bytes?: number;
  kv_cache_bytes?: number;
  in_flight?: number;
  queued?: number;
}

interface FigurePoint extends Figures {
  at: number;
}

interface Estimate {
  value: number;
  low: number;
  high: number;
  count: number;
}

interface Agreement extends Estimate {
  origin: string;
}

interface OriginReport {
  origin: string;
  count: number;
  measures: Record<string, Estimate>;
  smallest_difference: number;
}

interface LabelReport {
  dataset: string;
  accuracy: Estimate | null;
  perplexity: Estimate | null;
  difference: Estimate | null;
  smallest_difference: number | null;
}

interface KeptSample {
  origin: string;
  input: string | [string, string];
  agreement: number;
}

interface VariantQuality {
  variant: string;
  is_reference: boolean;
  verdict: string;
  reason: string;
  in_auto: boolean;
  quality_low: number | null;
  origins: OriginReport[];
  labels: LabelReport | null;
  worst: KeptSample[];
  probe_p95_s: number | null;
  artifact: string;
  probes: { state: string; done: number; total: number; reason: string };
}

interface VerdictChange {
  at: number;
  variant: string;
  artifact: string;
  reference_artifact: string;
  verdict: string;
  reason: string;
  in_auto: boolean;
  origins: OriginReport[];
  labels: LabelReport | null;
}

interface CourseStep {
  variant: string;
  origin: string;
  artifact: string;
  reference_artifact: string;
  at: number;
  agreement: Estimate;
}

interface ModelQuality {
  model: string;
  task: string;
  reference: string;
  floor: number;
  tolerance: number;
  evaluation: { state: string; done: number; total: number; reason: string } | null;
  variants: VariantQuality[];
  not_kept: string;
  history?: VerdictChange[];
}

interface LiveStore {
  connection: "connecting" | "live" | "paused" | "locked" | "lost";
  problem: string;
  heardAt: number;
  models: Map<string, ModelInfo>;
  states: Map<string, StateEntry>;
  figures: Map<string, Figures>;
  history: Map<string, FigurePoint[]>;
  quality: Map<string, ModelQuality>;
}

interface AutoEntry {
  variant: string;
  in: boolean;
  reason: string;
  missed: string[];
  p95_latency_ms: number | null;
  n: number;
  measured_by: "requests" | "probes" | null;
  cost_ms: number | null;
  quality_low: number | null;
  weights_bytes: number | null;
  in_flight: number;
}

interface AutoAnswer {
  model: string;
  policy: "best_effort" | "strict";
  choice: string | null;
  reason: string;
  missed: string[];
  data: AutoEntry[];
}
