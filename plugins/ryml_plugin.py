"""ryml in Airflow's UI: the page of nights, and a link to the rehearsal mailbox.

The only file that Airflow loads from plugins/ (see .airflowignore): it would register every other module under its
bare name.
"""

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from ryml_airflow.pages.nights import app


class RymlPlugin(AirflowPlugin):
    """The pages, mounted under /ryml; each of their routes asks for a signed-in user."""

    name = "ryml"
    fastapi_apps = [{"app": app, "url_prefix": "/ryml", "name": "ryml"}]  # noqa: RUF012 - AirflowPlugin's own form
    external_views = [  # noqa: RUF012
        {"name": "Nights", "href": "/ryml/", "destination": "nav", "category": "browse", "url_route": "ryml-nights"},
        {
            "name": "Rehearsal mailbox",
            "href": f"{conf.get('ryml', 'rehearsal_host', fallback='http://127.0.0.1:8085')}/mailbox",
            "destination": "nav",
            "category": "browse",
        },
    ]
