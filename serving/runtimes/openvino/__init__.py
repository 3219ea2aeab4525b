"""The runtime ``openvino``. Importing anything here keeps OpenVINO from calling home.

``import openvino`` alone writes an id into the home directory and sends usage data to a web
analytics service, unless the package that does so cannot be imported; then it goes on without.
"""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
