"""HTTP routes of the service, one module a subject; each has `build(fleet) -> APIRouter`."""
