"""What the routes know of a configured model."""

from serving.config import ModelConfig, VariantConfig
from serving.routes.catalog import served_model, served_variant
from serving.seams import ServedModel, VariantForm

FP32 = VariantConfig(name="fp32")
INT8 = VariantConfig(name="int8-ov", recipe="int8-static", runtime="openvino")
MODEL = ModelConfig(
    name="minilm",
    task="embeddings",
    source="/m",
    variants=(FP32, INT8),
    default_variant="int8-ov",
)
FORMS = {
    "fp32": VariantForm("fp32", "torch"),
    "int8-ov": VariantForm("int8-static", "openvino"),
}


def test_the_gateway_knows_every_variant() -> None:
    expected = ServedModel("minilm", "embeddings", "encoder", FORMS, "int8-ov", "fp32")
    assert served_model(MODEL) == expected


def test_a_replica_knows_its_own_alone() -> None:
    form = {"int8-ov": FORMS["int8-ov"]}
    expected = ServedModel("minilm", "embeddings", "encoder", form, "int8-ov", "int8-ov")
    assert served_variant(MODEL, MODEL.variants[1]) == expected


def test_the_kind_is_the_task_s() -> None:
    model = ModelConfig(name="smollm2", task="generation", source="/m", variants=(FP32,))
    assert served_model(model).kind == "generator"
