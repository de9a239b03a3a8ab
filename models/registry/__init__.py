"""The registry of models: the package's own, those that `register_model` makes known, and those of other packages."""

from embtables.models.registry.factory import ModelFactory as ModelFactory
from embtables.models.registry.registered import ModelCode as ModelCode
from embtables.models.registry.registered import code_of as code_of
from embtables.models.registry.registered import forget_model as forget_model
from embtables.models.registry.registered import register_model as register_model
from embtables.models.registry.registered import spec_of as spec_of
from embtables.models.spec import MODELS as MODELS
from embtables.models.spec import ModelConfig as ModelConfig
from embtables.models.spec import ModelInputs as ModelInputs
from embtables.models.spec import ModelOptions as ModelOptions
from embtables.models.spec import ModelSpec as ModelSpec
