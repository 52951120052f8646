"""The chat's pages."""

from django.urls import path

from chat import views

urlpatterns = [
    path("", views.rooms, name="rooms"),
    path("rooms/<str:token>/", views.room, name="room"),
]
