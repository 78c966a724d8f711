"""The HTTP door of the control plane: translate, call a service, translate back."""
