"""The configuration as frozen, validated data. No I/O and no environment: see ``settings.py``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

ModelName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=64)
]
"""No ``--``, ``/`` or ``:`` can occur: they separate model and variant in names, paths and ids."""

VariantName = ModelName
"""Chosen by the operator; of the same form, for the same reason."""

Alias = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$", max_length=200),
]
"""As hubs and other servers name models, e.g. ``org/Name`` or ``name:8b``."""

RESERVED_MODEL_NAMES = frozenset(
    {
        "v1",
        "v2",
        "console",
        "metrics",
        "health",
        "healthz",
        "docs",
        "openapi.json",
        "tokenize",
        "detokenize",
    }
)

Origin = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s]+)$")]
"""As browsers send it: scheme, host and perhaps port, without a slash at the end."""

AUTO = "auto"
"""In the place of a variant: the gateway chooses one that meets the request's limits."""

RESERVED_VARIANT_NAMES = frozenset({AUTO})

DEFAULT_MAX_TOKENS = 2_048
"""``max_tokens`` of a generator whose configuration gives none: keys and values of that many tokens
are allocated for every sequence that may run, and models have positions by the ten thousand."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_is_yes_or_no(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's ``true`` is no 1: pydantic takes it for one, as environment variables need it."""
        assert info.field_name is not None
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError(f"expected a value, not {str(value).lower()}")
        return value


class Autoscaling(_Section):
    """Bounds of a variant's replica count.

    Attributes:
        min: Fewest replicas.
        max: Most replicas.
        target: Requests in flight per replica that Ray Serve steers to.
    """

    min: int = Field(default=1, ge=1, le=64)
    max: int = Field(ge=1, le=64)
    target: float = Field(default=4, gt=0)

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Autoscaling:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is smaller than min ({self.min})")
        return self


class CalibrationConfig(_Section):
    """Which inputs a recipe measures activations with, if it calibrates.

    Attributes:
        data: ``probes`` or ``dataset`` (the model's own), or a file of the probes' form; None takes
            the dataset where the model has one that can be used, else the probes.
        count: Most inputs that are taken, evenly spread over the data.
    """

    data: str | None = None
    count: int = Field(default=300, ge=1, le=100_000)


class DraftConfig(_Section):
    """Which variant proposes tokens for this one to check; answers are this one's all the same.

    Attributes:
        variant: Another variant of the same model, with the same tokenizer.
        tokens: So many are proposed at once; ``auto`` chooses by what is measured, and proposes
            none where that does not pay.
    """

    variant: VariantName
    tokens: Literal["auto"] | Annotated[int, Field(ge=1, le=16)] = "auto"

    @field_validator("tokens", mode="wrap")
    @classmethod
    def _one_problem(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        """Of a union pydantic tells a problem for each branch, by names of its own."""
        try:
            return validate(value)
        except ValidationError:
            raise ValueError("1 to 16, or auto") from None


class AdapterConfig(_Section):
    """A LoRA adapter in PEFT's format. A bare source in the YAML stands for ``{source: SOURCE}``.

    Attributes:
        source: ``hf:org/name@revision``, ``package:import_name/path`` or a folder.
        place: ``merged`` adds it to the weights before the recipe makes its numbers; ``beside``
            keeps it in bfloat16 beside quantized weights, and adds what it makes of each input.
    """

    source: str = Field(min_length=1)
    place: Annotated[str, StringConstraints(pattern="^(merged|beside)$")] = "merged"

    @model_validator(mode="before")
    @classmethod
    def _fill_source(cls, data: Any) -> Any:
        return {"source": data} if isinstance(data, str) else data


class VariantConfig(_Section):
    """One variant of a model. A bare name in the YAML stands for ``{name: NAME}``.

    Attributes:
        name: Its public name, of the operator's choice.
        recipe: How its numbers are made, an entry of the table of recipes; its name if not given.
        runtime: What executes it, an entry of the table of runtimes.
        source: Where its checkpoint comes from, as of the model; the model's own if not given.
        adapter: What is added to the source's weights; the model's own if not given.
        device: ``auto`` takes CUDA where there is one and the runtime can use it.
        threads: Most intra-op threads on CPU; None takes as many as measurement finds useful.
        cores: ``shared`` takes turns with the node's other replicas; ``exclusive`` binds each
            replica to ``threads`` cores for which no other takes a turn.
        replicas: Fixed number of replicas, unless ``autoscaling`` is given.
        autoscaling: Let Ray Serve choose the number of replicas.
        max_batch_tokens: Most tokens in one forward pass of an encoder, padding included; None
            takes 1,024 on CPU and 16,384 on CUDA.
        max_running_requests: Sequences that one replica of a generator continues at once; each
            has room in its cache of keys and values from the start.
        kv_cache: How a generator keeps keys and values: ``float``, as they are computed, or
            ``int8``; then the pieces in which a prompt comes change its logits a little.
        max_queued_requests: Requests (of a generator: sequences) that may wait in one replica
            before it answers 429. On the direct path an encoder's replica has so many in all.
        options: Options of the recipe, which validates them.
        calibration: What a recipe that calibrates measures activations with.
        draft: A cheaper variant that proposes tokens to a generator, in the same replica.
        min_agreement: Agreement with the model's fp32 on torch, on calibration data that is held
            out, below which ``prepare`` installs nothing; None measures nothing.
    """

    name: VariantName
    recipe: str = ""
    runtime: str = "torch"
    source: str | None = Field(default=None, min_length=1)
    adapter: AdapterConfig | None = None
    device: Annotated[str, StringConstraints(pattern="^(auto|cpu|cuda)$")] = "auto"
    threads: int | None = Field(default=None, ge=1, le=256)
    cores: Annotated[str, StringConstraints(pattern="^(shared|exclusive)$")] = "shared"
    replicas: int = Field(default=1, ge=1, le=64)
    autoscaling: Autoscaling | None = None
    max_batch_tokens: int | None = Field(default=None, ge=1, le=1_048_576)
    max_running_requests: int = Field(default=8, ge=1, le=256)
    kv_cache: Annotated[str, StringConstraints(pattern="^(float|int8)$")] = "float"
    max_queued_requests: int = Field(default=128, ge=1, le=65_536)
    options: dict[str, Any] = Field(default_factory=dict)
    calibration: CalibrationConfig = CalibrationConfig()
    draft: DraftConfig | None = None
    min_agreement: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_recipe(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("name"), str):
            return {"recipe": data["name"], **data}
        return data

    @property
    def max_replicas(self) -> int:
        """The most replicas that there can be."""
        return self.autoscaling.max if self.autoscaling else self.replicas

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in RESERVED_VARIANT_NAMES:
            raise ValueError(f"{name!r} is reserved")
        return name

    @model_validator(mode="after")
    def _one_way_to_scale(self) -> VariantConfig:
        if self.autoscaling is not None and "replicas" in self.model_fields_set:
            raise ValueError("give either replicas or autoscaling, not both")
        return self

    @model_validator(mode="after")
    def _exclusive_cores_are_counted(self) -> VariantConfig:
        if self.cores == "exclusive" and self.threads is None:
            raise ValueError("cores: exclusive needs threads, to say how many each replica has")
        return self


class ShadowConfig(_Section):
    """Which live requests are answered again by the reference, in the background.

    Attributes:
        rate: Share of the requests; 0 samples none.
        max_per_second: Most comparisons of one model in a second.
    """

    rate: float = Field(default=0.002, ge=0, le=1)
    max_per_second: float = Field(default=1, gt=0, le=1_000)


class QualityConfig(_Section):
    """How the variants of a model are judged.

    Attributes:
        probes: File of fixed inputs, one JSON object ``{"input": …}`` a line, at least 11; those of
            the package if not given.
        dataset: File of labelled data: JSONL ``{"input", "label"}``, or for generation
            ``{"prompt", "completion"}`` or plain text.
        floor: Agreement below which a variant fails and leaves ``auto``; by task if not given.
        tolerance: Share of disagreement that does not count as a loss; by task if not given.
        shadow: Which live requests are compared.
        keep_samples: So many of the latest live inputs, and of each variant's worst comparisons,
            are kept with the evidence and shown; otherwise no input outlives its comparison.
        keep_days: Evidence that is older is forgotten.
    """

    probes: str | None = None
    dataset: str | None = None
    floor: float | None = Field(default=None, ge=0, le=1)
    tolerance: float | None = Field(default=None, ge=0, lt=1)
    shadow: ShadowConfig = ShadowConfig()
    keep_samples: int = Field(default=0, ge=0, le=1_000)
    keep_days: int = Field(default=30, ge=1, le=3_650)


class ModelConfig(_Section):
    """One served checkpoint under its public name.

    Attributes:
        name: Public name, used in paths, bodies and labels.
        aliases: Other names by which bodies may call it, with or without ``:variant``; they may
            have ``/`` and ``:``, and are for the field ``model`` alone.
        task: An entry of the table of tasks.
        source: ``hf:org/name@revision``, ``package:import_name/path``, a folder or a GGUF file; a
            variant may have one of its own.
        adapter: A LoRA adapter of which every variant is made, unless it names one of its own.
        variants: At least one, each name once.
        default_variant: Answers requests that choose none; ``auto``, or the first variant if not
            given.
        reference: The variant that the others are judged against; ``fp32``, or the first variant
            where there is no ``fp32``.
        trust_remote_code: Allow Python code that comes with the checkpoint.
        max_tokens: Lower limit for a text's tokens than the checkpoint's own; of a generator, for
            a prompt and its continuation together, 2,048 if not given.
        quality: How its variants are judged.
        slo_policy: What ``auto`` does where no variant meets a request's limits: ``best_effort``
            takes the nearest, ``strict`` refuses.
    """

    name: ModelName
    aliases: tuple[Alias, ...] = ()
    task: str
    source: str = Field(min_length=1)
    adapter: AdapterConfig | None = None
    variants: tuple[VariantConfig, ...] = Field(min_length=1)
    default_variant: str = ""
    reference: str = ""
    trust_remote_code: bool = False
    max_tokens: int | None = Field(default=None, ge=8)
    quality: QualityConfig = QualityConfig()
    slo_policy: Annotated[str, StringConstraints(pattern="^(best_effort|strict)$")] = "best_effort"

    @model_validator(mode="before")
    @classmethod
    def _fill_names(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("variants"), list | tuple):
            return data
        variants = [{"name": v} if isinstance(v, str) else v for v in data["variants"]]
        names = [v.get("name") if isinstance(v, dict) else getattr(v, "name", "") for v in variants]
        filled = {**data, "variants": variants}
        if names and all(names):
            filled.setdefault("default_variant", names[0])
            filled.setdefault("reference", "fp32" if "fp32" in names else names[0])
        return filled

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name in RESERVED_MODEL_NAMES:
            raise ValueError(f"{name!r} is a path of the service; choose another name")
        return name

    @model_validator(mode="after")
    def _names_agree(self) -> ModelConfig:
        names = [variant.name for variant in self.variants]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"variants given twice: {', '.join(repeated)}")
        listed = ", ".join(names)
        if self.reference not in names:
            raise ValueError(f"reference {self.reference!r} is not one of the variants: {listed}")
        if self.default_variant not in (*names, AUTO):
            raise ValueError(
                f"default_variant {self.default_variant!r} is not one of the variants: {listed}; "
                f"nor is it {AUTO}"
            )
        return self

    @model_validator(mode="after")
    def _drafts_are_variants(self) -> ModelConfig:
        by_name = {variant.name: variant for variant in self.variants}
        for variant in self.variants:
            if variant.draft is None:
                continue
            name = variant.draft.variant
            others = ", ".join(other for other in by_name if other != variant.name) or "none"
            if name == variant.name or name not in by_name:
                raise ValueError(
                    f"variant {variant.name!r}: draft.variant {name!r} is not another of the "
                    f"variants: {others}"
                )
            if by_name[name].draft is not None:
                raise ValueError(
                    f"variant {variant.name!r}: draft.variant {name!r} has a draft of its own; "
                    "name one that has none"
                )
        return self


class ServerConfig(_Section):
    """The HTTP side.

    Attributes:
        host: Address to bind; loopback unless the operator says otherwise.
        port: Port to bind.
        api_key: Bearer key that every request except health and metrics must carry; None asks
            for none.
        request_timeout_s: Seconds until a request without an answer gets 504; where text is
            generated, without the first token of each choice.
        generation_timeout_s: Seconds until a generation that is not at its end is cut off.
        max_body_bytes: Largest request body.
        max_inputs: Most texts in one request.
        max_requests_under_way: Requests (POST) that one process, a gateway or a replica, may be at
            work on or hold; those beyond get 429 before their body is read.
        cors_origins: Origins whose web pages may use the service, e.g. ``https://example.org``, or
            ``*`` for all; none if not given.
        gateways: Processes that take requests which choose their variant by anything but the path.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65_535)
    api_key: SecretStr | None = None
    request_timeout_s: float = Field(default=30, gt=0, le=3_600)
    generation_timeout_s: float = Field(default=300, gt=0, le=3_600)
    max_body_bytes: int = Field(default=2 * 1024 * 1024, ge=1_024)
    max_inputs: int = Field(default=256, ge=1, le=65_536)
    max_requests_under_way: int = Field(default=1_024, ge=1, le=65_536)
    cors_origins: tuple[Origin, ...] = ()
    gateways: int = Field(default=1, ge=1, le=16)

    @field_validator("api_key")
    @classmethod
    def _key_can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None:
            return None
        secret = key.get_secret_value()
        if not secret.strip():
            raise ValueError("an empty key lets everybody in; leave it out to ask for none")
        if secret != secret.strip() or not secret.isprintable():
            raise ValueError(
                "white space around it (such as a file's last line break) or control characters: "
                "no client could send it in a header"
            )
        return key


class ArtifactsConfig(_Section):
    """Where artifacts are kept.

    Attributes:
        folder: On every node that prepares or serves; a volume that nodes share prepares once.
    """

    folder: str = Field(default="~/.cache/quantserve/artifacts", min_length=1)


class EvidenceConfig(_Section):
    """Where what is known of quality is kept.

    Attributes:
        folder: On a local disk of the node where the quality process runs; services that run at
            the same time need one each.
    """

    folder: str = Field(default="~/.local/share/quantserve/evidence", min_length=1)


class ReportsConfig(_Section):
    """Where load tests write what they find.

    Attributes:
        folder: Its folders are looked at for ``results.json``; by default where the service was
            started, which is where ``quantserve loadtest`` writes if it is started there, too.
    """

    folder: str = Field(default=".", min_length=1)


class Config(_Section):
    """Everything that ``quantserve serve`` reads."""

    models: tuple[ModelConfig, ...] = Field(min_length=1)
    server: ServerConfig = ServerConfig()
    artifacts: ArtifactsConfig = ArtifactsConfig()
    evidence: EvidenceConfig = EvidenceConfig()
    reports: ReportsConfig = ReportsConfig()

    @field_validator("models")
    @classmethod
    def _names_differ(cls, models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
        names = [model.name for model in models]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"models given twice: {', '.join(repeated)}")
        return models

    @field_validator("models")
    @classmethod
    def _aliases_mean_one_variant(cls, models: tuple[ModelConfig, ...]) -> tuple[ModelConfig, ...]:
        meant = [name for model in models for name in (model.name, *model.aliases)]
        meant += [
            f"{name}:{variant}"
            for model in models
            for name in (model.name, *model.aliases)
            for variant in (*(variant.name for variant in model.variants), AUTO)
        ]
        for model in models:
            for alias in model.aliases:
                if meant.count(alias) > 1:
                    raise ValueError(
                        f"alias {alias!r} of model {model.name!r} means something already; "
                        "choose another"
                    )
        return models
